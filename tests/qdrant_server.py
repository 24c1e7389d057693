"""The local Qdrant server as a process of its own, for tests that need a Qdrant.

with local_qdrant(tmp_path) as server, server.connect() as client: ...
"""

import os
import select
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from qdrant_client import QdrantClient

REPOSITORY = Path(__file__).parents[1]
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 30


@dataclass(frozen=True)
class LocalQdrant:
    """A running server; the process belongs to the `local_qdrant` that started it."""

    url: str
    data_dir: Path
    process: subprocess.Popen[str]

    @contextmanager
    def connect(self) -> Iterator[QdrantClient]:
        # The check runs in a thread of the client's and warns when the server stops before it.
        client = QdrantClient(url=self.url, check_compatibility=False)
        try:
            yield client
        finally:
            client.close()

    def kill(self) -> None:
        """SIGKILL, and wait until it is dead."""
        self.process.kill()
        self.process.wait(STOP_TIMEOUT_S)

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        self.process.terminate()
        return self.process.wait(STOP_TIMEOUT_S)


@contextmanager
def local_qdrant(
    data_dir: Path,
    port: int | None = None,
    *,
    flush_interval_s: float = 5.0,
    module: str = "compose.qdrant",
    env: Mapping[str, str] | None = None,
) -> Iterator[LocalQdrant]:
    """Start a server on `data_dir`, wait until it is ready, stop it at the end.

    Without a port it takes a free one; another `module` wraps the server.
    """
    process = subprocess.Popen(
        command(data_dir, port or 0, flush_interval_s=flush_interval_s, module=module),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
    )
    with process:
        try:
            yield LocalQdrant(read_url(process), data_dir, process)
        finally:
            stop(process)


def command(
    data_dir: Path, port: int, *, flush_interval_s: float = 5.0, module: str = "compose.qdrant"
) -> list[str]:
    options = {"--data-dir": data_dir, "--port": port, "--flush-interval-s": flush_interval_s}
    arguments = [str(part) for option in options.items() for part in option]
    return [sys.executable, "-m", module, *arguments]


def read_url(process: subprocess.Popen[str]) -> str:
    """The address in the one line that a server prints when it is ready."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], START_TIMEOUT_S)
    line = process.stdout.readline() if ready else ""
    urls = [word for word in line.split() if word.startswith("http://")]
    if len(urls) != 1:
        raise AssertionError(f"the local Qdrant server did not start: {line!r}")
    return urls[0]


def stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
