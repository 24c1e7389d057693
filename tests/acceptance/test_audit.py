"""The audit in real workers: it finds what was purged, and never takes live work for lost."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tasks.client import submit
from tasks.messages import QUEUE
from tasks.settings import Settings
from tasks.snapshot import read_queue
from tests.processes import wait_until
from tests.redis_server import RedisServer
from tests.worker import local_worker
from workers.audit import Audit

ROUNDS = 4


@pytest.fixture
def purged(broker: RedisServer, settings: Settings, stack_env: dict[str, str]) -> None:
    """200 texts that were accepted, and whose messages are gone."""
    submit([f"purged {number}" for number in range(200)])
    command = [sys.executable, "-m", "celery", "-A", "tasks", "purge", "-f"]
    subprocess.run(command, check=True, capture_output=True)
    assert broker.client.llen(QUEUE) == 0


def test_a_worker_gives_back_the_room_of_purged_work(
    broker: RedisServer,
    settings: Settings,
    purged: None,
    stack_env: dict[str, str],
    tmp_path: Path,
) -> None:
    with local_worker(tmp_path, stack_env, concurrency=1) as worker:
        worker.program.wait_until(
            lambda: read_queue(broker.client, settings).outstanding == 0, "all is settled"
        )
        assert submit("there is room again").wait(60).done == 1


def test_live_work_is_never_taken_for_lost(
    broker: RedisServer, settings: Settings, stack_env: dict[str, str], tmp_path: Path
) -> None:
    """Messages move while they are looked for: fetched, given back, fetched again."""
    slow = {**stack_env, "EMBED_FAKE_TEXT_MS": "3"}
    with local_worker(tmp_path, slow) as worker, audits(settings) as cancelled:
        for round_ in range(ROUNDS):
            jobs = [submit([f"{round_} {n} {i}" for i in range(64)]) for n in range(3)]
            jobs += [submit(f"{round_} alone {number}") for number in range(20)]
            worker.children()[0].kill()
            assert [job.wait(60).cancelled for job in jobs] == [0] * len(jobs)
            wait_until(lambda: len(worker.children()) == 2, "the child is replaced")
        assert sum(cancelled) == 0
        assert len(cancelled) > ROUNDS


@contextmanager
def audits(settings: Settings) -> Iterator[list[int]]:
    """Audits one after the other that suspect every job at once."""
    cancelled: list[int] = []
    stop = threading.Event()
    audit = Audit(settings, grace_s=-1, pause_s=0.02)

    def look() -> None:
        while not stop.is_set():
            cancelled.append(audit.run())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield cancelled
    finally:
        stop.set()
        thread.join()
