"""Queries: what their way adds when idle, what a backlog adds, and what ingestion loses by them."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from tasks.settings import Settings
from tasks.statistics import Statistics, read_statistics
from tests.bench.baselines.raw import raw_processes
from tests.bench.bench import Bench
from tests.bench.figures import pair, percentile
from tests.bench.load import post_all
from tests.bench.measures import GROUPS
from tests.bench.sides import CONNECTIONS, Product, our_body, product, wait_until_idle
from tests.bench.single import BLOCK, WARM_UP
from tests.bench.workload import REQUEST_TEXTS, Work, corpus
from tests.processes import wait_until
from workers.weights import find_weights

KEYS = GROUPS["queries"]
OVERHEAD, WAIT, INGEST = KEYS
CHARACTERS = 800
"""Of a query at most: longer ones may be more than the model reads."""
ROOM = {"EMBED_QUEUE_LIMIT": "100000", "EMBED_QUERY_TIMEOUT_S": "60"}
PAUSE_S = 0.1
"""Between two queries beside an ingestion."""
TIMEOUT_S = 90.0
SETTLE_S = 2.5
"""After which children have sent what they measured: they do so once a second."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A client of `POST /v1/embeddings`."""

    client: httpx.Client
    model: str

    def time_one(self, text: str) -> float:
        """Seconds until its vector is there."""
        began_s = time.monotonic()
        body = {"input": text, "model": self.model, "encoding_format": "base64"}
        self.client.post("/v1/embeddings", json=body).raise_for_status()
        return time.monotonic() - began_s

    def time_all(self, texts: Sequence[str]) -> list[float]:
        """One after the other."""
        return [self.time_one(text) for text in texts]


def measure(bench: Bench) -> None:
    bench.part(lambda: _measure(bench), *KEYS)


def _measure(bench: Bench) -> None:
    with (
        product(bench.folder, bench.cores, **ROOM) as stack,
        httpx.Client(base_url=stack.side.url, trust_env=False, timeout=TIMEOUT_S) as client,
    ):
        asked = Asked(client, stack.settings.model)
        texts = [text for text in corpus() if len(text) <= CHARACTERS]
        texts = texts[: WARM_UP + bench.scale.singles]
        asked.time_all(texts[:WARM_UP])
        idle = _overhead(bench, asked, texts[WARM_UP:])
        if bench.wants(INGEST):
            _ingest(bench, stack, asked, texts)
        if bench.wants(WAIT):
            _wait(bench, stack, asked, texts[WARM_UP:], idle)


def _overhead(bench: Bench, asked: Asked, texts: Sequence[str]) -> list[float]:
    ours: list[float] = []
    raw: list[float] = []
    with raw_processes(find_weights(Settings()), 1) as bare:
        for at in range(0, len(texts), BLOCK):
            raw += bare.time_each(texts[at : at + BLOCK])
            ours += asked.time_all(texts[at : at + BLOCK])
    details = {"ours": _ms(ours, 50), "theirs": _ms(raw, 50), "queries": len(ours)}
    shown = {f"p{at}_ms": {"ours": _ms(ours, at), "raw": _ms(raw, at)} for at in (50, 95, 99)}
    bench.results.record(OVERHEAD, details["ours"] - details["theirs"], details | shown)
    return ours


def _ingest(bench: Bench, stack: Product, asked: Asked, texts: Sequence[str]) -> None:
    """Beside queries ingestion has what they leave: its time less what children spent on them."""
    alone: list[float] = []
    beside: list[float] = []
    left: list[float] = []
    for number in range(bench.scale.query_rounds):
        work = Work(f"alone{number}", _fresh(f"alone{number}", bench.scale.slow_texts))
        alone.append(stack.side.ingest(work).rate)
        before = _statistics(stack)
        work = Work(f"beside{number}", _fresh(f"beside{number}", bench.scale.slow_texts))
        with _asking(asked, texts):
            run = stack.side.ingest(work)
        spent_s = _statistics(stack).histograms["query"].sum - before.histograms["query"].sum
        beside.append(run.rate)
        left.append(alone[-1] * (1 - spent_s / (bench.cores * run.seconds)))
    details = pair(beside, left).as_details()
    over_alone = pair(beside, alone).as_details()
    bench.results.record(INGEST, details["value"], details | {"over_alone": over_alone})


def _wait(
    bench: Bench, stack: Product, asked: Asked, texts: Sequence[str], idle: Sequence[float]
) -> None:
    wait_until_idle(stack)
    work = Work("backlog", _fresh("backlog", bench.scale.query_backlog), REQUEST_TEXTS)
    bodies = [our_body(work.collection, request) for request in work.requests()]
    post_all(f"{stack.side.url}/embed", bodies, connections=CONNECTIONS)
    before = _statistics(stack)
    busy = asked.time_all(texts)
    after = _statistics(stack)
    calls = after.counters["model_calls"] - before.counters["model_calls"]
    batch_s = (after.histograms["encode"].sum - before.histograms["encode"].sum) / calls
    added_s = percentile(busy, 95) - percentile(idle, 95)
    details = {"ours": _ms(busy, 95), "theirs": _ms(idle, 95), "batch_ms": round(1000 * batch_s, 2)}
    shown = {f"p{at}_ms": {"busy": _ms(busy, at), "idle": _ms(idle, at)} for at in (50, 95, 99)}
    details |= {"backlog": len(work.texts), "queries": len(busy)}
    bench.results.record(WAIT, added_s / batch_s, details | shown)


@contextmanager
def _asking(asked: Asked, texts: Sequence[str]) -> Iterator[None]:
    """Queries for the block, ten a second and less."""
    ended = threading.Event()

    def ask() -> None:
        for number in range(10**6):
            asked.time_one(texts[number % len(texts)])
            if ended.wait(PAUSE_S):
                return

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _statistics(stack: Product) -> Statistics:
    """When all children have sent what they had."""
    began_s = time.monotonic()
    wait_until(lambda: time.monotonic() - began_s > SETTLE_S, "measurements are sent")
    return read_statistics(stack.redis.client, stack.settings)


def _fresh(name: str, count: int) -> list[str]:
    """Texts of the corpus, none of which was there before."""
    texts = corpus()
    return [f"{name} {number}. {texts[number % len(texts)]}" for number in range(count)]


def _ms(seconds: Sequence[float], at: float) -> float:
    return round(1000 * percentile(seconds, at), 2)
