"""Is one setting faster than another, given rates that were measured in turns? Pure.

A pair of rounds stands beside each other in time, so what else the machine does meets both: only
their ratio counts. The logarithms of ratios are taken as normal with one spread for the machine,
which is learnt from all comparisons; a 90 % interval of Student's t then says what is sure.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

MARGIN = 0.02
"""A setting has to be so much faster to be worth leaving the simpler one."""
INDIFFERENCE = 0.05
"""One that is surely less than so much faster, and seems less than `MARGIN`, is measured no more:
telling 2 % from nothing would take the time of several other comparisons."""
MOST_PAIRS = 6
PRIOR_SPREAD, PRIOR_WEIGHT = 0.05, 2
"""Before anything is known: 5 % between two rounds, worth two observations."""

_T90 = (
    *(6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812),
    *(1.796, 1.782, 1.771, 1.761, 1.753, 1.746, 1.740, 1.734, 1.729, 1.725),
)
"""Student's t: 90 % lie between -t and t, for 1 to 20 degrees of freedom."""
_T90_BEYOND = 1.70


class Verdict(StrEnum):
    BETTER = "better"
    WORSE = "worse"
    EQUAL = "equal"
    UNSURE = "unsure"


@dataclass(frozen=True, slots=True)
class Judgement:
    """Challenger over incumbent: the mean ratio with its 90 % interval, over `pairs` pairs of
    rounds. `verdict` EQUAL: hardly better, and not surely worse."""

    verdict: Verdict
    ratio: float = 1.0
    low: float = 0.0
    high: float = math.inf
    pairs: int = 0
    note: str = ""
    """Why it was not measured, where it was not."""


class Noise:
    """How much two rounds of the same settings differ here, learnt from all comparisons."""

    def __init__(self) -> None:
        self._squares = PRIOR_WEIGHT * PRIOR_SPREAD**2
        self._weight = PRIOR_WEIGHT

    def learn(self, ratios: Sequence[float]) -> None:
        """The pairs of one comparison that has ended."""
        squares, weight = _scatter(ratios)
        self._squares += squares
        self._weight += weight

    def with_pairs(self, ratios: Sequence[float]) -> tuple[float, int]:
        """The spread and its degrees of freedom, these pairs included."""
        squares, weight = _scatter(ratios)
        degrees = self._weight + weight
        return math.sqrt((self._squares + squares) / degrees), degrees

    @property
    def spread(self) -> float:
        """Of the logarithm of a pair's ratio."""
        return math.sqrt(self._squares / self._weight)


def judge(ratios: Sequence[float], noise: Noise, *, most_pairs: int = MOST_PAIRS) -> Judgement:
    """What the pairs so far say; UNSURE: more are wanted, unless there are `most_pairs`.

    One pair may show that a challenger is worse, never that it is better. Raises ValueError without
    pairs.
    """
    if not ratios:
        raise ValueError("no pairs")
    logs = [math.log(ratio) for ratio in ratios]
    mean = sum(logs) / len(logs)
    spread, degrees = noise.with_pairs(ratios)
    half = _t90(degrees) * spread / math.sqrt(len(logs))
    low, high = math.exp(mean - half), math.exp(mean + half)
    verdict = _verdict(math.exp(mean), low, high, len(ratios), most_pairs)
    return Judgement(verdict, math.exp(mean), low, high, len(ratios))


def _verdict(ratio: float, low: float, high: float, pairs: int, most_pairs: int) -> Verdict:
    if high < 1:
        return Verdict.WORSE
    if low > 1 and ratio >= 1 + MARGIN and pairs > 1:
        return Verdict.BETTER
    settled = high < 1 + INDIFFERENCE or pairs >= most_pairs
    hardly_better = settled and ratio < 1 + MARGIN and pairs > 1
    return Verdict.EQUAL if hardly_better else Verdict.UNSURE


def _scatter(ratios: Sequence[float]) -> tuple[float, int]:
    logs = [math.log(ratio) for ratio in ratios]
    mean = sum(logs) / len(logs)
    return sum((log - mean) ** 2 for log in logs), len(logs) - 1


def _t90(degrees: int) -> float:
    return _T90[degrees - 1] if degrees <= len(_T90) else _T90_BEYOND
