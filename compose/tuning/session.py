"""One tuning from beginning to end: what is measured in which order, within a budget.

Only `compose.tune` imports it.
"""

from collections.abc import Callable
from contextlib import suppress

from compose.errors import Interrupted, OutOfTime
from compose.progress import format_duration
from compose.tuning.advice import Findings, label
from compose.tuning.door import DoorMeter, counts_for
from compose.tuning.duels import Budget, Duels
from compose.tuning.judging import Judgement, Verdict
from compose.tuning.measurements import Door
from compose.tuning.mill import Mill
from compose.tuning.points import Axis, Point, Space
from compose.tuning.progress import Display
from compose.tuning.search import Search
from tasks.errors import EmbedError

DOOR_S = 30.0
DOOR_SHARE = 0.15
"""Of the budget that is kept for the web, at most."""
DOOR_ROUND_S = 1.0
STOPPING_S = 5.0
"""For the servers to end."""
ROUND_SHARE = 1 / 150
LEAST_ROUND_S, MOST_ROUND_S = 1.0, 5.0


class Session:
    """What has been found can be read at any time, also after an error or Ctrl-C."""

    def __init__(self, space: Space, mill: Mill, budget: Budget, display: Display) -> None:
        self._space, self._mill, self._budget = space, mill, budget
        self._display = display
        door_s = min(DOOR_S, DOOR_SHARE * budget.seconds) + STOPPING_S
        self._door_s = door_s
        self._duels = Duels(
            mill,
            budget,
            seconds=min(max(ROUND_SHARE * budget.seconds, LEAST_ROUND_S), MOST_ROUND_S),
            reserved_s=door_s + min(DOOR_S, budget.seconds / 12),
            on_doing=display.doing,
        )
        self._search = Search(space, self._compare)
        self._against_default: Judgement | None = None
        self._door: Door | None = None
        self._best: Point | None = None

    def run(self, make_door: Callable[[], DoorMeter]) -> None:
        """Raises OutOfTime when not even the default could be measured, StackError, Interrupted.
        Without an answer of the web only the door is missing."""
        default = self._space.default
        self._duels.begin(default)
        rate = self._duels.measured[default].rate
        self._display.say(f"{default} (default): {rate:,.0f} texts/s")
        with suppress(OutOfTime):
            self._search.run()
        self._duels.reserved_s = self._door_s
        if self._search.best != default:
            with suppress(OutOfTime):
                self._confirm(default)
        self._duels.end()
        self._display.doing("how much the web accepts")
        try:
            self._measure_door(make_door())
        except Interrupted:
            raise
        except EmbedError as error:  # what the workers do is known all the same
            cause = error.detail.splitlines()[0]
            self._display.say(f"how much the web accepts could not be measured: {cause}")

    def end(self) -> None:
        """Kill the workers."""
        self._duels.end()

    @property
    def found(self) -> Findings | None:
        """None before the default was measured."""
        if not any(one.rounds for one in self._duels.measured.values()):
            return None
        return Findings(
            space=self._space,
            best=self._best or self._search.best,
            measured=self._duels.measured,
            comparisons=self._search.comparisons,
            against_default=self._against_default,
            door=self._door,
            complete=self._search.complete and self._door is not None,
        )

    def estimate(self) -> tuple[float, float]:
        """Seconds spent, and those that are expected to be left."""
        left_s = self._budget.left_s
        if not self._search.complete:
            left_s = min(
                left_s, self._search.steps_left * self._duels.duel_s + self._duels.reserved_s
            )
        else:
            left_s = min(left_s, self._duels.reserved_s)
        return self._budget.spent_s, max(left_s, 0.0)

    def _compare(self, axis: Axis, challenger: Point, incumbent: Point) -> Judgement:
        judgement = self._duels.compare(axis, challenger, incumbent)
        left = format_duration(self.estimate()[1])
        name = label(self._space, axis, challenger)
        other = label(self._space, axis, incumbent)
        self._display.say(f"{describe(name, other, judgement)}; about {left} left")
        return judgement

    def _confirm(self, default: Point) -> None:
        """The best beside the default, unless they have met: steps that each are sure may add up to
        less. The default is what stays where the best turns out to be hardly faster, or slower."""
        best = self._search.best
        for comparison in self._search.comparisons:
            if (comparison.challenger, comparison.incumbent) == (best, default):
                self._against_default = comparison.judgement
                return
        judgement = self._duels.compare(Axis.CONCURRENCY, best, default)
        self._against_default = judgement
        self._display.say(describe(str(best), f"the default, {default}", judgement))
        if judgement.pairs and judgement.verdict in {Verdict.WORSE, Verdict.EQUAL}:
            self._best = default

    def _measure_door(self, door: DoorMeter) -> None:
        self._mill.clear()
        found = door.measure(
            counts_for(self._space.cores),
            seconds=DOOR_ROUND_S,
            may_go_on=lambda: self._budget.left_s > STOPPING_S,
        )
        self._door = found
        rates = ", ".join(f"{found.rate(n):,.0f} with {n}" for n in found.rates)
        self._display.say(f"the web accepts texts/s: {rates}")


def describe(name: str, other: str, judgement: Judgement) -> str:
    """A comparison in a line."""
    if not judgement.pairs:
        return f"{name}: left out, {judgement.note}"
    sure = {
        Verdict.BETTER: "faster",
        Verdict.WORSE: "slower",
        Verdict.EQUAL: "no faster",
        Verdict.UNSURE: "not sure",
    }[judgement.verdict]
    pairs = f"{judgement.pairs} pair{'s' * (judgement.pairs > 1)}"
    interval = f"{judgement.low:.2f} to {judgement.high:.2f}"
    return f"{name}: {judgement.ratio:.2f} times {other} ({interval}, {pairs}): {sure}"
