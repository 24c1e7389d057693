"""Whether `embedmill tune` finds what a grid finds, beats what people set by hand, and agrees with
itself. Only by name (`--only tune`): it takes hours, with `--quick` some fifteen minutes.

Every point of the grid runs in fresh processes and in turns with the recommended settings, whose
worker stays; the best of the grid are compared again, as the best of many is partly luck.
"""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import median
from tempfile import mkdtemp
from typing import Any

from rich.console import Console

from compose.interruption import Interruption
from compose.output import Output
from compose.tuning.duels import Budget
from compose.tuning.ground import Ground, private_ground
from compose.tuning.mill import Mill, Worker
from compose.tuning.points import Point
from compose.tuning.progress import Lines
from compose.tuning.session import Session
from tasks.settings import Settings
from tests.bench.bench import Bench
from tests.bench.results import BenchError
from tests.bench.workload import sample, texts_of_length

logger = logging.getLogger(__name__)

PART = "tune"
GRID_KEY, NAIVE_KEY, AGAIN_KEY = "tuned_over_grid_best", "tuned_over_naive", "tuned_again"
CHILDREN = (1, 2, 4, 8)
TOKENS = (64, 128, 256, 512, 1024, 2048, 4096, 8192)
QUICK_CHILDREN, QUICK_TOKENS = (1, 2, 4), (256, 512, 1024)
TEXTS = 1500
FINALISTS = 3
FINAL_PAIRS = 6
QUICK_PAIRS = 3
BUDGET_S, QUICK_BUDGET_S = 600.0, 150.0
ROUND_S, QUICK_ROUND_S = 4.0, 2.0
START_S, LIMIT_S = 300.0, 120.0
NAIVE_CHILDREN, NAIVE_TEXTS, MOST_TOKENS = 8, 32, 256


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured."""

    kinds: Sequence[str]
    grid: Sequence[tuple[int, int]]
    budget_s: float
    round_s: float
    pairs: int


def measure(bench: Bench) -> None:
    """By name only."""
    if PART in bench.only:
        bench.part(lambda: _measure(bench), PART)


def _measure(bench: Bench) -> None:
    quick = not bench.scale.extras
    extent = Extent(
        kinds=("mixed",) if quick else tuple(KINDS),
        grid=list(product(*((QUICK_CHILDREN, QUICK_TOKENS) if quick else (CHILDREN, TOKENS)))),
        budget_s=QUICK_BUDGET_S if quick else BUDGET_S,
        round_s=QUICK_ROUND_S if quick else ROUND_S,
        pairs=QUICK_PAIRS if quick else FINAL_PAIRS,
    )
    found = {kind: _of_texts(bench, extent, KINDS[kind]()) for kind in extent.kinds}
    for key, name in ((GRID_KEY, "grid"), (NAIVE_KEY, "naive"), (AGAIN_KEY, "again")):
        values = {kind: one[name] for kind, one in found.items()}
        worst = min(values.values())
        bench.results.record(key, worst, {"by_texts": values})
    bench.results.details[PART] = found


KINDS: dict[str, Callable[[], Sequence[str]]] = {
    "mixed": lambda: sample(TEXTS),
    "short": lambda: texts_of_length(10, TEXTS),
    "long": lambda: texts_of_length(250, TEXTS // 4),
}


def _of_texts(bench: Bench, extent: Extent, texts: Sequence[str]) -> dict[str, Any]:
    """Ratios for one kind of texts: the first recommendation over the others."""
    first, second = (_tune(bench, extent, texts) for _ in range(2))
    with _ground(bench, texts) as ground:
        rivals = Rivals(ground.mill, first, extent.round_s)
        usual = ground.space.budget_tokens
        grid = [Point(c, batch_tokens=None if t == usual else t) for c, t in extent.grid]
        ratios = {point: rivals.ratio(point, pairs=1) for point in grid if point != first}
        finalists = sorted(ratios, key=lambda point: ratios[point])[:FINALISTS]
        final = {point: rivals.ratio(point, pairs=extent.pairs) for point in finalists}
        cores = ground.space.cores
        naive = Point(NAIVE_CHILDREN, threads=cores, batch_tokens=NAIVE_TEXTS * MOST_TOKENS)
        return {
            "grid": round(min(1.0, *final.values()), 4),
            "naive": round(rivals.ratio(naive, pairs=extent.pairs), 4),
            "again": round(_agreement(rivals, first, second, extent.pairs), 4),
            "recommended": [asdict(first), asdict(second)],
            "grid_ratios": {str(point): round(ratio, 4) for point, ratio in ratios.items()},
            "final_ratios": {str(point): round(ratio, 4) for point, ratio in final.items()},
            "rate": round(rivals.rate, 1),
        }


def _agreement(rivals: "Rivals", first: Point, second: Point, pairs: int) -> float:
    """The slower of two recommendations over the faster."""
    if first == second:
        return 1.0
    ratio = rivals.ratio(second, pairs=pairs)
    return min(ratio, 1 / ratio)


class Rivals:
    """Points beside the recommended one, whose worker stays."""

    def __init__(self, mill: Mill, recommended: Point, round_s: float) -> None:
        self._mill, self._round_s = mill, round_s
        self._ours = mill.start(recommended, limit_s=START_S)
        self._rates: list[float] = []
        self._measure(self._ours)  # while no rate is known, a round's length is a guess

    @property
    def rate(self) -> float:
        """Of the recommended settings, texts a second."""
        return median(self._rates)

    def ratio(self, point: Point, *, pairs: int) -> float:
        """Ours over theirs: the median of so many pairs of rounds."""
        rival = self._mill.start(point, limit_s=START_S)
        ratios = []
        for number in range(pairs):
            order = (rival, self._ours) if number % 2 else (self._ours, rival)
            rates = {worker.pid: self._measure(worker) for worker in order}
            ratios.append(rates[self._ours.pid] / rates[rival.pid])
            self._rates.append(rates[self._ours.pid])
        self._mill.kill(rival)
        logger.info("  %s: %.2f times it", point, median(ratios))
        return median(ratios)

    def _measure(self, worker: Worker) -> float:
        return self._mill.measure(worker, seconds=self._round_s, limit_s=LIMIT_S).rate


def _tune(bench: Bench, extent: Extent, texts: Sequence[str]) -> Point:
    with _ground(bench, texts) as ground:
        display = Lines(Console(file=sys.stderr, width=140))
        session = Session(ground.space, ground.mill, Budget(extent.budget_s), display)
        try:
            session.run(ground.door)
        finally:
            session.end()
    if session.found is None:
        raise BenchError("tuning measured nothing")
    logger.info("  recommended: %s", session.found.best)
    return session.found.best


@contextmanager
def _ground(bench: Bench, texts: Sequence[str]) -> Iterator[Ground]:
    folder = Path(mkdtemp(dir=bench.folder))
    with (
        (folder / "tune.log").open("w", encoding="utf-8") as log,
        private_ground(Settings(), texts, folder, Output(log), Interruption()) as ground,
    ):
        yield ground
