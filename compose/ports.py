"""Loopback ports; only `compose` imports it."""

import socket
from collections.abc import Sequence
from contextlib import ExitStack

HOST = "127.0.0.1"


def is_free(port: int) -> bool:
    """Whether a server could listen there. Connecting finds those that listen on every address."""
    with socket.socket() as probe, socket.socket() as client:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        client.settimeout(1.0)
        return client.connect_ex((HOST, port)) != 0


def choose(usual: Sequence[int]) -> list[int]:
    """Each usual port when it is free, else any free one; 0 means any. All differ."""
    with ExitStack() as held:
        return [port if port and is_free(port) else _hold_any(held) for port in usual]


def _hold_any(held: ExitStack) -> int:
    """A free port, kept until all are chosen so that none is chosen twice."""
    holder = held.enter_context(socket.socket())
    holder.bind((HOST, 0))
    port: int = holder.getsockname()[1]
    return port
