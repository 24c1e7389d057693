"""Whether a long queue is worked off as fast as a short one, and what a waiting text costs Redis.

With the fake encoder: it is the queue that is measured. The worker is told not to consume while a
backlog is filled in, and the clock runs from the first text settled to the last one.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import orjson
from celery import Celery

from tasks.messages import QUEUE
from tests.acceptance.chaos.stack import read_settled
from tests.bench.bench import Bench
from tests.bench.load import post_all
from tests.bench.results import BenchError
from tests.bench.sides import Product, product, wait_until_idle
from tests.bench.workload import corpus
from tests.processes import wait_until

KEY = "drain_rate_200k_over_1k"
SMALL = 1_000
REQUEST_TEXTS = 500
STALL_S = 120.0
REPLY_S = 5.0
FAKE = {
    "EMBED_MODEL": "fake",
    "EMBED_FAKE_DIMENSION": "32",
    "EMBED_QUEUE_LIMIT": "1000000",
    "EMBED_QUEUE_BYTES": str(4 * 1024**3),
}


def measure(bench: Bench) -> None:
    bench.part(lambda: _measure(bench), KEY)


def _measure(bench: Bench) -> None:
    with product(bench.folder, bench.cores, **FAKE) as stack:
        _drain(stack, SMALL, "warm")
        half = bench.scale.small_backlogs // 2
        small = [_drain(stack, SMALL, f"small{at}")[0] for at in range(half)]
        large, bytes_each = _drain(stack, bench.scale.backlog, "large")
        rest = range(half, bench.scale.small_backlogs)
        small += [_drain(stack, SMALL, f"small{at}")[0] for at in rest]
    ratio = large / median(small)
    details = {
        "ours": round(large, 1),
        "theirs": round(median(small), 1),
        "lowest_of_1k": round(min(small), 1),
        "highest_of_1k": round(max(small), 1),
        "backlog": bench.scale.backlog,
        "redis_bytes_per_queued_text": round(bytes_each),
        "mean_text_bytes": round(sum(len(text.encode()) for text in corpus()) / len(corpus())),
    }
    bench.results.record(KEY, ratio, details)


def _drain(stack: Product, count: int, name: str) -> tuple[float, float]:
    """Texts settled a second, and Redis' bytes a waiting text."""
    wait_until_idle(stack)
    client = stack.redis.client
    before_bytes = int(client.info("memory")["used_memory"])
    settled_before = read_settled(client) or 0
    with _paused(stack):
        post_all(f"{stack.side.url}/embed", _bodies(count, name), connections=2)
        used_bytes = int(client.info("memory")["used_memory"]) - before_bytes
    return _time_drain(stack, settled_before, count), used_bytes / count


def _bodies(count: int, name: str) -> list[bytes]:
    texts = corpus()
    documents = [{"id": f"{name}-{at}", "text": texts[at % len(texts)]} for at in range(count)]
    options = {"collection": name, "on_long": "truncate"}
    starts = range(0, count, REQUEST_TEXTS)
    return [
        orjson.dumps({"documents": documents[at : at + REQUEST_TEXTS], **options}) for at in starts
    ]


@contextmanager
def _paused(stack: Product) -> Iterator[None]:
    """The worker does not fetch inside the block."""
    control = Celery(broker=stack.redis.url, set_as_current=False).control
    _tell(control.cancel_consumer, stack)
    yield
    _tell(control.add_consumer, stack)


def _tell(command: object, stack: Product) -> None:
    assert callable(command)
    if not command(QUEUE, destination=[stack.worker.name], reply=True, timeout=REPLY_S):
        raise BenchError("the worker does not answer")


def _time_drain(stack: Product, settled_before: int, count: int) -> float:
    first, first_s = _wait_for_more(stack, settled_before)
    last, now_s = first, first_s
    while last < settled_before + count:
        last, now_s = _wait_for_more(stack, last)
    if last == first:
        raise BenchError(f"all {count} texts were settled at once")
    return (last - first) / (now_s - first_s)


def _wait_for_more(stack: Product, settled: int) -> tuple[int, float]:
    found = settled

    def grown() -> bool:
        nonlocal found
        found = read_settled(stack.redis.client) or settled
        return found > settled

    wait_until(grown, "texts are settled", timeout_s=STALL_S)
    return found, time.monotonic()
