"""Ingestion over what people use instead: sides take turns, each run's points are checked."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from itertools import count
from typing import Any

import numpy as np
from pydantic import ValidationError

from tasks.settings import Settings
from tests.bench.baselines.raw import Raw, raw_processes
from tests.bench.bench import Bench
from tests.bench.figures import Floats, cosines, pair, top_overlap
from tests.bench.measures import MEASURES
from tests.bench.results import BenchError
from tests.bench.sides import Run, Side, asyncio_queue, celery_texts, product
from tests.bench.store import check_points
from tests.bench.workload import REQUEST_TEXTS, Work, sample
from workers.weights import find_weights

logger = logging.getLogger(__name__)

DIMENSION = 384
WARM_UP_TEXTS = 32
CHECKED_TEXTS = 64
INT8_LEAST_COSINE = 0.99
INT8_LEAST_OVERLAP = 0.88
_numbers = count(1)


@dataclass
class Reference:
    """Bare encode: a side that stores nothing, and what all others' vectors are compared with."""

    raw: Raw
    name: str = "bare encode"
    vectors: dict[str, Floats] = field(default_factory=dict)

    def ingest(self, work: Work) -> Run:
        encoded = self.raw.encode(work.texts)
        self.vectors.update(zip(work.texts, encoded.vectors, strict=True))
        return Run(len(work.texts), encoded.wall_s, {"encode": encoded.cpu_s})

    def of(self, texts: Sequence[str]) -> dict[str, Floats]:
        """Those that are not known are encoded now."""
        unknown = [text for text in texts if text not in self.vectors]
        if unknown:
            self.ingest(Work("", unknown))
        return {text: self.vectors[text] for text in texts}


Runs = dict[str, list[Run]]


@contextmanager
def reference(processes: int) -> Iterator[Reference]:
    with raw_processes(find_weights(Settings()), processes) as raw:
        yield Reference(raw)


def take_turns(
    sides: Sequence[Side | Reference],
    texts: Sequence[str],
    rounds: int,
    check: Reference,
    *,
    limit_s: float,
    request_texts: int = REQUEST_TEXTS,
) -> Runs:
    """`rounds` runs of each side, every second round in reverse; after `limit_s` seconds no further
    round begins. Raises BenchError."""
    began_s = time.monotonic()
    runs: Runs = {side.name: [] for side in sides}
    for number in range(rounds):
        if number and time.monotonic() - began_s > limit_s:
            logger.info("  %d of %d rounds: it takes too long here", number, rounds)
            break
        for side in sides if number % 2 == 0 else reversed(sides):
            work = Work(f"run{next(_numbers)}", texts, request_texts)
            runs[side.name].append(side.ingest(work))
            logger.info("  %s: %.1f texts/s", side.name, runs[side.name][-1].rate)
            if isinstance(side, Side):
                _check(side, work, check)
    return runs


def compare(runs: Runs, ours: str, theirs: str) -> dict[str, Any]:
    """The ratio of rates, and beside it that of CPU time a text: where other work takes the cores
    away, a side with more threads gets more of them, but what a text costs stays about the same."""
    ratio = pair([run.rate for run in runs[ours]], [run.rate for run in runs[theirs]])
    ours_ms, theirs_ms = cpu_ms_per_text(runs[ours]), cpu_ms_per_text(runs[theirs])
    return {
        **ratio.as_details(),
        "texts": runs[ours][0].texts,
        "cpu_ratio": round(sum(theirs_ms.values()) / sum(ours_ms.values()), 4),
        "cpu_ms_per_text": {"ours": ours_ms, "theirs": theirs_ms},
    }


def warm_up(sides: Sequence[Side]) -> None:
    """Small requests through each, twice: every process has then done each thing once."""
    for side in sides:
        for _ in range(2):
            side.ingest(Work(f"warm{next(_numbers)}", sample(WARM_UP_TEXTS), WARM_UP_TEXTS // 8))


def measure(bench: Bench) -> None:
    """All that compares ingestion, as far as it is wanted."""
    keys = [measure.key for measure in MEASURES if measure.key.startswith("ingest_")]
    bench.part(lambda: _measure_all(bench), *keys)


def _measure_all(bench: Bench) -> None:
    with ExitStack() as ends:
        check = ends.enter_context(reference(bench.cores))
        ours = ends.enter_context(product(bench.folder, bench.cores)).side
        warm_up([ours])
        bench.part(lambda: _over_raw(bench, ours, check), "ingest_fp32_over_raw")
        bench.part(lambda: _int8_over_raw(bench, check), "ingest_int8_over_raw_fp32")
        for key, start in _others(bench).items():
            bench.part(partial(_over_slow, bench, key, ours, start, check), key)


def _others(bench: Bench) -> dict[str, Callable[[], AbstractContextManager[Side]]]:
    def celery(one_thread: bool) -> AbstractContextManager[Side]:
        return celery_texts(bench.folder, bench.cores, DIMENSION, one_thread=one_thread)

    return {
        "ingest_over_asyncio_queue": lambda: asyncio_queue(bench.folder, bench.cores, DIMENSION),
        "ingest_over_plain_celery": lambda: celery(one_thread=True),
        "ingest_over_stock_celery": lambda: celery(one_thread=False),
    }


def _over_raw(bench: Bench, ours: Side, check: Reference) -> None:
    scale = bench.scale
    texts = sample(scale.raw_texts)
    runs = take_turns([check, ours], texts, scale.raw_rounds, check, limit_s=scale.limit_s)
    details = compare(runs, ours.name, check.name)
    bench.results.record("ingest_fp32_over_raw", details["value"], details)


def _int8_over_raw(bench: Bench, check: Reference) -> None:
    if reason := int8_obstacle():
        raise BenchError(reason)
    scale = bench.scale
    texts = sample(scale.raw_texts)
    with product(bench.folder, bench.cores, name="ours, int8", EMBED_BACKEND="onnx-int8") as stack:
        warm_up([stack.side])
        sides: tuple[Side | Reference, ...] = (check, stack.side)
        runs = take_turns(sides, texts, scale.raw_rounds, check, limit_s=scale.limit_s)
        details = compare(runs, stack.side.name, check.name)
        work = Work(f"run{next(_numbers)}", texts)
        stack.side.ingest(work)
        quality = _int8_quality(stack.side.store.read_all(work.collection), check.of(texts))
    bench.results.record("ingest_int8_over_raw_fp32", details["value"], details | quality)


def _int8_quality(found: dict[str, Floats], fp32: dict[str, Floats]) -> dict[str, Any]:
    left = np.stack([found[text] for text in fp32])
    right = np.stack(list(fp32.values()))
    cosine, overlap = float(cosines(left, right).mean()), top_overlap(left, right)
    kept = cosine >= INT8_LEAST_COSINE and overlap >= INT8_LEAST_OVERLAP
    return {
        "mean_cosine": round(cosine, 5),
        "top10_overlap": round(overlap, 4),
        "quality_kept": kept,
    }


def int8_obstacle() -> str:
    """Why the int8 backend cannot be measured here; empty if it can."""
    if "backend" not in Settings.model_fields:
        return "this version has no setting EMBED_BACKEND"
    try:
        Settings.model_validate({"backend": "onnx-int8"})
    except ValidationError:
        return "this version has no backend onnx-int8"
    missing = [package for package in ("onnxruntime", "onnx") if not find_spec(package)]
    return f"its extra is not installed ({', '.join(missing)} missing)" if missing else ""


def _over_slow(
    bench: Bench,
    key: str,
    ours: Side,
    start: Callable[[], AbstractContextManager[Side]],
    check: Reference,
) -> None:
    scale = bench.scale
    stock = key == "ingest_over_stock_celery"
    texts = sample(scale.stock_texts if stock else scale.slow_texts)
    rounds = scale.stock_rounds if stock else scale.slow_rounds
    with start() as theirs:
        warm_up([theirs])
        runs = take_turns([theirs, ours], texts, rounds, check, limit_s=scale.limit_s)
    details = compare(runs, ours.name, theirs.name)
    bench.results.record(key, details["value"], details)


def cpu_ms_per_text(runs: Sequence[Run]) -> dict[str, float]:
    """CPU milliseconds by process, over all runs."""
    texts = sum(run.texts for run in runs)
    roles = runs[0].cpu_s
    return {role: round(1000 * sum(r.cpu_s[role] for r in runs) / texts, 3) for role in roles}


def _check(side: Side, work: Work, check: Reference) -> None:
    found = side.store.read_all(work.collection)
    if side.name == "ours, int8":  # its quality is a measure of its own
        if len(found) != len(work.texts):
            raise BenchError(f"{len(found)} points of {len(work.texts)} texts")
        return
    check_points(found, work.texts, check.of(work.texts[:CHECKED_TEXTS]))
