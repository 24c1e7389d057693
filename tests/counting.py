"""Workers of `tests.counting_app`, and messages for them."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from celery import Celery

from tests.processes import Program

ROOT = Path(__file__).parents[1]
QUEUES = ("first", "second")
RUNS, STARTED, GATE = "counting:runs", "counting:started", "counting:gate"
"""Runs by number; when each was started, in Unix seconds; a list that holding tasks wait for."""


@contextmanager
def counting_worker(
    url: str, folder: Path, *flags: str, env: Mapping[str, str] | None = None
) -> Iterator[Program]:
    """A Celery worker of `tests.counting_app`, which may be killed and restarted."""
    argv = [sys.executable, "-m", "celery", "-A", "tests.counting_app", "worker", "-c", "2"]
    argv += ["--without-mingle", "--without-gossip", "--loglevel", "INFO", *flags]
    settings = {"EMBED_BROKER_URL": url, **(env or {})}
    program = Program(argv, log=folder / "worker.log", env=settings, cwd=ROOT)
    try:
        program.wait_until(lambda: " ready." in program.output(), "the worker is ready")
        yield program
    finally:
        program.stop()


def send(url: str, task: str, numbers: Iterable[int], queue: str = QUEUES[0]) -> None:
    """Publish as any Celery program does."""
    with Celery(broker=url, set_as_current=False) as app:
        app.conf.broker_transport_options = {"priority_steps": [0]}
        for number in numbers:
            app.send_task(f"counting.{task}", (number,), queue=queue, ignore_result=True)
