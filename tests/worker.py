"""Real Celery workers for tests: prefork, on the session's Redis."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import redis

from tasks.presence import workers
from tests.processes import Program


class Worker:
    """`celery -A workers worker -c N` as a process."""

    def __init__(
        self,
        folder: Path,
        env: Mapping[str, str],
        *,
        concurrency: int,
        name: str,
        app: str,
        options: Sequence[str],
    ) -> None:
        self.name = f"{name}@localhost"
        self.concurrency = concurrency
        self.client: redis.Redis = redis.Redis.from_url(env["EMBED_BROKER_URL"])
        argv = [sys.executable, "-m", "celery", "-A", app, "worker", "-c", str(concurrency)]
        self.program = Program(
            [*argv, "-n", self.name, "--loglevel", "INFO", *options],
            log=folder / f"{name}.log",
            env=env,
        )

    def wait(self) -> None:
        """Until every child has loaded its model."""
        self.program.wait_until(self._warm, f"{self.name} is warm")

    def children(self) -> list[psutil.Process]:
        """The pool's processes."""
        return psutil.Process(self.program.pid).children()

    def _warm(self) -> bool:
        found = [worker for worker in workers(self.client) if worker.name == self.name]
        return bool(found) and found[0].warm == self.concurrency


@contextmanager
def local_worker(
    folder: Path,
    env: Mapping[str, str],
    *,
    concurrency: int = 2,
    name: str = "worker",
    app: str = "workers",
    options: Sequence[str] = (),
    awaited: bool = True,
) -> Iterator[Worker]:
    """Work for the block; `awaited=False` does not wait until it is warm."""
    worker = Worker(folder, env, concurrency=concurrency, name=name, app=app, options=options)
    try:
        if awaited:
            worker.wait()
        yield worker
    finally:
        worker.program.stop()
        worker.client.close()
