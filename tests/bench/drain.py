"""Whether a long queue is worked off as fast as a short one, and what a waiting text costs Redis.

With the fake encoder: it is the queue that is measured. The worker is told not to consume while a
backlog is filled in, and the clock runs from when it may until the last text is settled. Beside
that stands the rate between the first and the last settled: a worker has all of a short backlog in
its memory by then, so there the fetching is left out, and the long one alone pays for it.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
        small = [_drain(stack, SMALL, f"small{at}") for at in range(half)]
        large = _drain(stack, bench.scale.backlog, "large")
        rest = range(half, bench.scale.small_backlogs)
        small += [_drain(stack, SMALL, f"small{at}") for at in rest]
    rates = [drain.rate for drain in small]
    between = median(drain.rate_between for drain in small)
    details = {
        "ours": round(large.rate, 1),
        "theirs": round(median(rates), 1),
        "lowest_of_1k": round(min(rates), 1),
        "highest_of_1k": round(max(rates), 1),
        "ratio_between_first_and_last": round(large.rate_between / between, 4),
        "backlog": bench.scale.backlog,
        "redis_bytes_per_queued_text": round(large.bytes_each),
        "mean_text_bytes": round(sum(len(text.encode()) for text in corpus()) / len(corpus())),
    }
    bench.results.record(KEY, large.rate / median(rates), details)


@dataclass(frozen=True, slots=True)
class Drain:
    """Texts settled a second, of all from the start and of those after the first; and Redis' bytes
    a waiting text."""

    rate: float
    rate_between: float
    bytes_each: float


def _drain(stack: Product, count: int, name: str) -> Drain:
    wait_until_idle(stack)
    client = stack.redis.client
    before_bytes = int(client.info("memory")["used_memory"])
    settled_before = read_settled(client) or 0
    with _paused(stack):
        post_all(f"{stack.side.url}/embed", _bodies(count, name), connections=2)
        used_bytes = int(client.info("memory")["used_memory"]) - before_bytes
        began_s = time.monotonic()
    first, first_s, last_s = _wait_for_all(stack, settled_before, count)
    left = settled_before + count - first
    return Drain(count / (last_s - began_s), left / (last_s - first_s), used_bytes / count)


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


def _wait_for_all(stack: Product, settled_before: int, count: int) -> tuple[int, float, float]:
    """How many were settled when that was first seen, when that was, and when all were."""
    first, first_s = _wait_for_more(stack, settled_before)
    last, last_s = first, first_s
    while last < settled_before + count:
        last, last_s = _wait_for_more(stack, last)
    if last == first:
        raise BenchError(f"all {count} texts were settled at once")
    return first, first_s, last_s


def _wait_for_more(stack: Product, settled: int) -> tuple[int, float]:
    found = settled

    def grown() -> bool:
        nonlocal found
        found = read_settled(stack.redis.client) or settled
        return found > settled

    wait_until(grown, "texts are settled", timeout_s=STALL_S)
    return found, time.monotonic()
