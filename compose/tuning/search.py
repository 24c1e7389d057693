"""Which points to compare, in which order: one axis after the other, from the default on. Pure.

On each axis it climbs away from the best point so far. A point that is worse ends that direction:
what lies beyond is not measured. One that is about as fast lets it look one step further. It begins
anew with the first axis until a whole turn changes nothing; a value that was far behind once is not
tried again. Prefetch comes last and once: it changes nothing for the others.
"""

from collections.abc import Callable
from dataclasses import dataclass

from compose.tuning.judging import Judgement, Verdict
from compose.tuning.points import Axis, Point, Space

PATIENCE = 1
"""Steps beyond a point that is not better and not worse."""
FAR_BEHIND = 0.9
"""Surely slower than that: not worth another try beside other values of the other settings."""
COUPLED = (Axis.CONCURRENCY, Axis.BATCH_TOKENS, Axis.THREADS)
STEPS = 2
"""Comparisons that an axis takes where it is not known: the better neighbour's and another."""

Compare = Callable[[Axis, Point, Point], Judgement]
"""Takes the axis, the challenger and the best so far. What it raises ends the search."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A challenger against the point that was the best then."""

    axis: Axis
    challenger: Point
    incumbent: Point
    judgement: Judgement

    @property
    def winner(self) -> Point:
        better = self.judgement.verdict is Verdict.BETTER
        return self.challenger if better else self.incumbent


class Search:
    """The best point and the comparisons so far can be read at any time, also after an error."""

    def __init__(self, space: Space, compare: Compare) -> None:
        self._space, self._compare = space, compare
        self.best = space.default
        self.comparisons: list[Comparison] = []
        self.complete = False
        self._axes_left = list(Axis)

    def run(self) -> Point:
        """The best point."""
        changed = True
        while changed:
            self._axes_left = list(Axis)
            changed = any([self._climb(axis) for axis in COUPLED])
        self._climb(Axis.PREFETCH)
        self.complete = True
        return self.best

    @property
    def steps_left(self) -> int:
        """Comparisons that are still to come, as far as can be told."""
        return sum(min(STEPS, self._untried(axis)) for axis in self._axes_left)

    @property
    def unsure(self) -> list[Comparison]:
        """Those that more time might have decided otherwise."""
        return [c for c in self.comparisons if c.judgement.verdict is Verdict.UNSURE]

    def _climb(self, axis: Axis) -> bool:
        """Whether it found a better point."""
        before = self.best
        for direction in (1, -1):
            self._walk(axis, direction)
            if self.best != before:
                break
        self._axes_left.remove(axis)
        return self.best != before

    def _walk(self, axis: Axis, direction: int) -> None:
        line = self._space.line(axis, self.best)
        at, patience = line.index(self.best) + direction, PATIENCE
        while 0 <= at < len(line):
            verdict = self._verdict(axis, line[at])
            if verdict is Verdict.BETTER:
                patience = PATIENCE
            elif verdict is Verdict.WORSE or not patience:
                return
            else:
                patience -= 1
            at += direction

    def _verdict(self, axis: Axis, challenger: Point) -> Verdict:
        known = self._find(axis, challenger)
        if known is not None:
            return known
        judgement = self._compare(axis, challenger, self.best)
        self.comparisons.append(Comparison(axis, challenger, self.best, judgement))
        self.best = self.comparisons[-1].winner
        return judgement.verdict

    def _find(self, axis: Axis, challenger: Point) -> Verdict | None:
        """What is known of it and the best: not worth measuring again."""
        for comparison in self.comparisons:
            pair = (comparison.challenger, comparison.incumbent)
            if pair == (challenger, self.best):
                return comparison.judgement.verdict
            if pair == (self.best, challenger) or self._is_far_behind(comparison, axis, challenger):
                return Verdict.WORSE
        return None

    def _is_far_behind(self, comparison: Comparison, axis: Axis, challenger: Point) -> bool:
        """By a comparison of the same two values, whatever the other settings were."""
        value = self._space.value
        same = (
            comparison.axis is axis
            and value(axis, comparison.challenger) == value(axis, challenger)
            and value(axis, comparison.incumbent) == value(axis, self.best)
        )
        return same and comparison.judgement.high < FAR_BEHIND

    def _untried(self, axis: Axis) -> int:
        line = self._space.line(axis, self.best)
        return sum(self._find(axis, point) is None for point in line if point != self.best)
