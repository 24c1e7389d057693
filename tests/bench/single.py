"""One text, idle stack: what the way from `POST /embed` to the upsert's reply adds to encode."""

import os
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from tasks.settings import Settings
from tests.bench import timed_qdrant
from tests.bench.baselines.raw import raw_processes
from tests.bench.bench import Bench
from tests.bench.figures import percentile
from tests.bench.results import BenchError
from tests.bench.sides import Product, product, wait_until_idle
from tests.bench.workload import sample
from workers.weights import find_weights

BLOCK = 20
"""Texts of one side before it is the other's turn."""
WARM_UP = 10
REPLY_TIMEOUT_S = 60.0
P50, P99 = "single_overhead_ms_p50", "single_overhead_ms_p99"


@dataclass(frozen=True, slots=True)
class Upserts:
    """The pipe that the store writes its moments into."""

    pipe: int

    def forget(self) -> None:
        while select.select([self.pipe], [], [], 0)[0]:
            os.read(self.pipe, 65536)

    def next_s(self) -> float:
        """The moment of the next reply. Raises BenchError when none comes."""
        if not select.select([self.pipe], [], [], REPLY_TIMEOUT_S)[0]:
            raise BenchError("a text did not reach the store")
        return float(os.read(self.pipe, 65536).split()[0])


def measure(bench: Bench) -> None:
    bench.part(lambda: _measure(bench), P50, P99)


def _measure(bench: Bench) -> None:
    texts = sample(WARM_UP + bench.scale.singles)
    ours: list[float] = []
    raw: list[float] = []
    with (
        _timed_product(bench) as (stack, upserts),
        raw_processes(find_weights(Settings()), 1) as bare,
        httpx.Client(base_url=stack.side.url, trust_env=False) as client,
    ):
        for text in texts[:WARM_UP]:
            _time_ours(client, stack, upserts, text)
        for at in range(WARM_UP, len(texts), BLOCK):
            block = texts[at : at + BLOCK]
            raw += bare.time_each(block)
            ours += [_time_ours(client, stack, upserts, text) for text in block]
    _record(bench, ours, raw)


@contextmanager
def _timed_product(bench: Bench) -> Iterator[tuple[Product, Upserts]]:
    path = bench.folder / "upserts"
    os.mkfifo(path)
    pipe = os.open(path, os.O_RDWR)  # for reading and writing, opening does not wait for the other
    try:
        with product(
            bench.folder,
            bench.cores,
            qdrant_module="tests.bench.timed_qdrant",
            **{timed_qdrant.PIPE: str(path)},
        ) as stack:
            yield stack, Upserts(pipe)
    finally:
        os.close(pipe)


def _time_ours(client: httpx.Client, stack: Product, upserts: Upserts, text: str) -> float:
    wait_until_idle(stack)
    upserts.forget()
    began_s = time.monotonic()
    client.post("/embed", json={"text": text, "on_long": "truncate"}).raise_for_status()
    return upserts.next_s() - began_s


def _record(bench: Bench, ours: list[float], raw: list[float]) -> None:
    shown = {"ours": _percentiles_ms(ours), "raw": _percentiles_ms(raw)}
    for key, name in ((P50, "p50_ms"), (P99, "p99_ms")):
        overhead_ms = shown["ours"][name] - shown["raw"][name]
        details = {"ours": shown["ours"][name], "theirs": shown["raw"][name], "texts": len(ours)}
        bench.results.record(key, overhead_ms, details | {"all": shown})


def _percentiles_ms(seconds: list[float]) -> dict[str, float]:
    return {f"p{at}_ms": round(1000 * percentile(seconds, at), 2) for at in (50, 90, 99)}
