"""Real uvicorn processes for tests."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.processes import Program, free_port


class WebServer:
    """`uvicorn webapp.main:app` on a free port."""

    def __init__(self, folder: Path, env: Mapping[str, str], workers: int) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        argv = [sys.executable, "-m", "uvicorn", "webapp.main:app", "--port", str(self.port)]
        if workers > 1:
            argv += ["--workers", str(workers)]
        self.program = Program(argv, log=folder / f"web-{self.port}.log", env=env)
        self.wait()

    def wait(self) -> None:
        """Until it answers."""
        self.program.wait_until(self._answers, "the web answers")

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/livez").status_code == 200
        except httpx.HTTPError:
            return False


@contextmanager
def local_web(folder: Path, env: Mapping[str, str], *, workers: int = 1) -> Iterator[WebServer]:
    """Serve for the block."""
    server = WebServer(folder, env, workers)
    try:
        yield server
    finally:
        server.program.stop()
