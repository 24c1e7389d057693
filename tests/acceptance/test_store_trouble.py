"""A store that is away: documents wait, none fails, and a worker still stops when told to."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tasks import embed
from tasks.client import Job, submit
from tests.processes import free_port, wait_until
from tests.qdrant_server import local_qdrant
from tests.redis_server import RedisServer
from tests.worker import Worker, local_worker

TIMEOUT_S = 60
WAIT_S = 4.0


class Trouble:
    """A worker with a store of its own that comes and goes."""

    def __init__(self, folder: Path, broker: RedisServer) -> None:
        self.folder, self.port = folder, free_port()
        self.env = {
            "EMBED_BROKER_URL": broker.url,
            "EMBED_QDRANT_URL": f"http://127.0.0.1:{self.port}",
            "EMBED_MODEL": "fake",
        }

    @contextmanager
    def worker_without_store(self, *options: str) -> Iterator[Worker]:
        with local_qdrant(self.folder / "store", self.port) as store:
            with local_worker(self.folder, self.env, options=options) as worker:
                submit("the collection").wait(TIMEOUT_S)
                store.stop()
                yield worker


@pytest.fixture
def trouble(tmp_path: Path, broker: RedisServer) -> Trouble:
    return Trouble(tmp_path, broker)


@pytest.fixture
def storeless(trouble: Trouble) -> Iterator[Worker]:
    with trouble.worker_without_store() as worker:
        yield worker


@pytest.fixture(params=[("--soft-time-limit", "1"), ("--time-limit", "1")], ids="_".join)
def limited(trouble: Trouble, request: pytest.FixtureRequest) -> Iterator[Worker]:
    with trouble.worker_without_store(*request.param) as worker:
        yield worker


def waits(worker: Worker) -> bool:
    return "trying again" in worker.program.output()


def cpu_s(worker: Worker) -> float:
    family = [psutil.Process(worker.program.pid), *worker.children()]
    return sum(sum(process.cpu_times()[:2]) for process in family)


def test_documents_wait_for_the_store(storeless: Worker, trouble: Trouble) -> None:
    jobs = [submit([f"{n}-{m}" for m in range(10)]) for n in range(20)]
    wait_until(lambda: waits(storeless), "a child waits")
    before = cpu_s(storeless)
    began = time.monotonic()
    wait_until(lambda: time.monotonic() - began > WAIT_S, "it has waited for a while")
    assert cpu_s(storeless) - before < WAIT_S / 4
    assert all(job.progress().failed == 0 for job in jobs)
    with local_qdrant(trouble.folder / "store", trouble.port):
        settled = [job.wait(TIMEOUT_S) for job in jobs]
    assert {(job.state, job.done) for job in settled} == {("done", 10)}


@pytest.mark.slow
def test_an_outage_longer_than_the_patience_of_workers_fails_nothing(trouble: Trouble) -> None:
    """Ten minutes against five, on a clock that goes 150 times as fast."""
    trouble.env["EMBED_STORE_WAIT_S"] = "2"
    with trouble.worker_without_store() as worker:
        jobs = [submit([f"{n}-{m}" for m in range(10)]) for n in range(20)]
        wait_until(lambda: waits(worker), "a child waits")
        before, began = cpu_s(worker), time.monotonic()
        wait_until(lambda: time.monotonic() - began > WAIT_S, "that is over")
        assert cpu_s(worker) - before < WAIT_S / 4
        assert "goes back to the queue" in worker.program.output()
        with local_qdrant(trouble.folder / "store", trouble.port):
            assert {(job.wait(TIMEOUT_S).done, job.progress().failed) for job in jobs} == {(10, 0)}


@pytest.mark.slow
def test_time_limits_do_not_count_the_wait(limited: Worker, trouble: Trouble) -> None:
    """Else a soft one fails the documents that wait, and a hard one kills their child."""
    jobs = [submit(f"limited {n}") for n in range(3)]
    alone = embed.apply_async(("limited by itself",), time_limit=1)
    wait_until(lambda: waits(limited), "a child waits")
    began, children = time.monotonic(), limited.children()
    wait_until(lambda: time.monotonic() - began > WAIT_S, "the limit has passed, and again")
    assert limited.children() == children
    with local_qdrant(trouble.folder / "store", trouble.port):
        assert {job.wait(TIMEOUT_S).done for job in jobs} == {1}
        assert alone.get(timeout=TIMEOUT_S)["done"] == 1
    assert limited.children() == children


def test_a_stopping_worker_gives_its_work_back(
    storeless: Worker, trouble: Trouble, broker: RedisServer
) -> None:
    job: Job = submit([f"kept {n}" for n in range(100)])
    wait_until(lambda: waits(storeless), "a child waits")
    assert storeless.program.stop(TIMEOUT_S) == 0
    assert broker.client.llen("embed") == 2
    assert broker.client.hlen("unacked") == 0
    with local_qdrant(trouble.folder / "store", trouble.port):
        with local_worker(trouble.folder, trouble.env, name="next"):
            assert job.wait(TIMEOUT_S).done == 100
