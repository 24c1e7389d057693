"""Real uvicorn processes for tests and the benchmark."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.processes import Program, free_port


class WebServer:
    """`uvicorn webapp.main:app`, or another application, on a free port."""

    def __init__(
        self,
        folder: Path,
        env: Mapping[str, str],
        workers: int,
        app: str = "webapp.main:app",
        options: Sequence[str] = (),
    ) -> None:
        self.port = free_port()
        self.probe = "/livez" if app == "webapp.main:app" else "/openapi.json"
        self.url = f"http://127.0.0.1:{self.port}"
        argv = [sys.executable, "-m", "uvicorn", app, "--port", str(self.port), *options]
        if workers > 1:
            argv += ["--workers", str(workers)]
        self.program = Program(argv, log=folder / f"web-{self.port}.log", env=env)
        self.wait()

    def wait(self) -> None:
        """Until it answers."""
        self.program.wait_until(self._answers, "the web answers")

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}{self.probe}").status_code == 200
        except httpx.HTTPError:
            return False


@contextmanager
def local_web(
    folder: Path,
    env: Mapping[str, str],
    *,
    workers: int = 1,
    app: str = "webapp.main:app",
    options: Sequence[str] = (),
) -> Iterator[WebServer]:
    """Serve for the block."""
    server = WebServer(folder, env, workers, app, options)
    try:
        yield server
    finally:
        server.program.stop()
