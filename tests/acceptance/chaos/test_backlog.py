"""A long queue costs what its texts take, and drains as a short one does."""

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import redis

from tasks.celery import app
from tasks.ledger import Ledger, run
from tasks.messages import Document, Options
from tasks.settings import Settings
from tasks.submission import build_submission, new_job_id, slice_job
from tests.acceptance.chaos.stack import read_settled
from tests.processes import wait_until
from tests.qdrant_server import local_qdrant
from tests.redis_server import RedisServer, local_redis
from tests.worker import Worker, local_worker

DOCUMENTS, PARTS = 200_000, 10
IDS = 2_000
"""They repeat, so that the store stays small: it is not what is measured."""
TEXT = "some words of a text that waits, " * 10
MIB = 1024 * 1024


@dataclass
class Gauge:
    """What a drain shows: when each part was settled, and what memory it took."""

    worker: Worker
    client: redis.Redis
    parts_at: list[float] = field(default_factory=list)
    main_bytes: list[int] = field(default_factory=list)
    redis_bytes: list[int] = field(default_factory=list)

    def passed(self, settled: int) -> bool:
        self.main_bytes.append(psutil.Process(self.worker.program.pid).memory_info().rss)
        self.redis_bytes.append(memory(self.client))
        while (read_settled(self.client) or 0) >= settled * (len(self.parts_at) + 1) / PARTS:
            self.parts_at.append(time.monotonic())
        return len(self.parts_at) >= PARTS

    def rates(self) -> list[float]:
        """Documents a second in each part but the first, in which the worker begins."""
        times = zip(self.parts_at[:-1], self.parts_at[1:], strict=True)
        return [DOCUMENTS / PARTS / (after - before) for before, after in times]


@pytest.mark.chaos
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("size", [64, 1], ids=["in lists of 64", "one by one"])
def test_a_long_queue_is_bounded_and_drains_evenly(tmp_path: Path, size: int) -> None:
    with local_redis(tmp_path) as broker, local_qdrant(tmp_path / "store") as store:
        env = {
            "EMBED_BROKER_URL": broker.url,
            "EMBED_QDRANT_URL": store.url,
            "EMBED_MODEL": "fake",
            "EMBED_FAKE_DIMENSION": "32",
            "EMBED_QUEUE_LIMIT": str(DOCUMENTS),
            "EMBED_QUEUE_BYTES": str(1024 * MIB),
        }
        before = memory(broker.client)
        enqueue(broker, env, size)
        queued = memory(broker.client)
        with local_worker(tmp_path, env) as worker:
            gauge = Gauge(worker, broker.client)
            wait_until(lambda: gauge.passed(DOCUMENTS), "all is settled", timeout_s=1500)
        report(gauge, before, queued)
        assert max(gauge.redis_bytes) < 1.2 * queued
        assert max(gauge.main_bytes) < 1.5 * gauge.main_bytes[0]
        assert statistics.mean(gauge.rates()[-3:]) > 0.5 * statistics.mean(gauge.rates()[:3])


def enqueue(broker: RedisServer, env: dict[str, str], size: int) -> None:
    """As the web does it, without its requests."""
    values = {name.removeprefix("EMBED_").lower(): value for name, value in env.items()}
    settings = Settings.model_validate(values)
    for job in split(size):
        slices = slice_job(new_job_id(), job)
        submission = build_submission(app, slices, Options(settings.collection))
        run(broker.client, Ledger(settings).accept(submission))


def split(size: int) -> Iterator[list[Document]]:
    for start in range(0, DOCUMENTS, size):
        numbers = range(start, min(start + size, DOCUMENTS))
        yield [Document(f"sheet-{n % IDS}", f"{n} {TEXT}") for n in numbers]


def memory(client: redis.Redis) -> int:
    return int(client.info("memory")["used_memory"])


def report(gauge: Gauge, before: int, queued: int) -> None:
    """What it took, for people."""
    each = (queued - before) / DOCUMENTS
    print(f"Redis: {each:.0f} bytes a queued text of {len(TEXT)}, {queued / MIB:.0f} MiB in all,")
    most, end = max(gauge.redis_bytes), gauge.redis_bytes[-1]
    print(f"  at most {most / MIB:.0f} MiB, at the end {end / MIB:.0f} MiB")
    first, most = gauge.main_bytes[0], max(gauge.main_bytes)
    print(f"worker main: {first / MIB:.0f} MiB at the start, {most / MIB:.0f} MiB at most")
    print("documents a second, by tenths:", *(f"{rate:.0f}" for rate in gauge.rates()))
