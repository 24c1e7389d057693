"""How many texts a second the web accepts, by its number of processes; no worker works meanwhile.

One text a request, which is the most requests; the client is one process on the same cores. Only
`compose.tuning` imports it.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, islice
from urllib.parse import urlsplit

import orjson

from compose.errors import StackError
from compose.ports import HOST, choose
from compose.probes import answers_get
from compose.service import Service
from compose.services import PYTHON
from compose.stack import Stack
from compose.tuning.measurements import Door

COUNTS = (1, 2, 4, 8)
MOST_PER_CORE = 2
CONNECTIONS = 32
BODIES = 256
ROUNDS = 3
TIMEOUT_S = 30.0


def counts_for(cores: int) -> list[int]:
    """Numbers of web processes worth trying."""
    return [count for count in COUNTS if count <= max(2, MOST_PER_CORE * cores)]


class DoorMeter:
    """Web processes on the private stack's servers."""

    def __init__(
        self,
        stack: Stack,
        environment: Mapping[str, str],
        texts: Sequence[str],
        clear: Callable[[], None],
    ) -> None:
        """`clear` empties Redis."""
        self._stack, self._environment = stack, environment
        self._clear = clear
        self._bodies = [orjson.dumps({"text": text}) for text in islice(cycle(texts), BODIES)]

    def measure(
        self, counts: Sequence[int], *, seconds: float, may_go_on: Callable[[], bool]
    ) -> Door:
        """Rounds in turns, so that what else the machine does meets all. Raises StackError."""
        door = Door()
        running: dict[int, Service] = {}
        for count in counts:
            if running and not may_go_on():
                break
            running[count] = self._start(count)
        for _ in range(ROUNDS):
            for count, service in running.items():
                self._stack.check()
                door.rates.setdefault(count, []).append(self._flood(service.url, seconds))
            if not may_go_on():
                break
        for service in running.values():
            self._stack.kill(service)
        return door

    def _start(self, count: int) -> Service:
        (port,) = choose((0,))
        url = f"http://{HOST}:{port}"
        where = ("--host", HOST, "--port", str(port), "--workers", str(count), "--no-access-log")
        service = Service(
            name=f"web --workers {count}",
            command=(*PYTHON, "uvicorn", "webapp.main:app", *where, "--log-level", "warning"),
            environment=self._environment,
            probe=answers_get(f"{url}/livez"),
            url=url,
        )
        self._stack.start(service)
        return service

    def _flood(self, url: str, seconds: float) -> float:
        self._clear()
        began_s = time.monotonic()
        try:
            answered = asyncio.run(_flood(url, self._bodies, began_s + seconds))
        except (OSError, EOFError, TimeoutError) as error:
            raise StackError(f"the web at {url} did not answer: {error}") from error
        return answered / (time.monotonic() - began_s)


async def _flood(url: str, bodies: Sequence[bytes], until_s: float) -> int:
    """Texts accepted."""
    parts = urlsplit(url)
    head = f"POST /embed HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
    requests = cycle(
        [head.encode() + b"Content-Length: %d\r\n\r\n%b" % (len(body), body) for body in bodies]
    )
    assert parts.hostname is not None
    senders = [
        _send(parts.hostname, parts.port or 80, requests, until_s) for _ in range(CONNECTIONS)
    ]
    return sum(await asyncio.wait_for(asyncio.gather(*senders), TIMEOUT_S))


async def _send(host: str, port: int, requests: "cycle[bytes]", until_s: float) -> int:
    reader, writer = await asyncio.open_connection(host, port)
    accepted = 0
    try:
        while time.monotonic() < until_s:
            writer.write(next(requests))
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            body = await reader.readexactly(length)
            if head[9:10] != b"2":
                raise StackError(f"the web answered {head[9:12].decode()}: {body[:200]!r}")
            accepted += 1
    finally:
        writer.close()
    return accepted
