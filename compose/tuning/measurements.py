"""What was measured, as values. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

from compose.sample import Work

ENOUGH = 2.0
"""Times what the workers embed: then the web is not what anybody waits for."""
ALIKE = 0.9
"""Of the fastest: no more can be told apart in so short rounds."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Over a stretch of time: cores busy, by role and for all other programs; the GPU's share."""

    cores: Mapping[str, float]
    other_cores: float
    gpu: float | None

    @property
    def own_cores(self) -> float:
        return sum(self.cores.values())


@dataclass(frozen=True, slots=True)
class Round:
    """A stretch of steady work: `rate` in texts a second; `queued` messages at its end."""

    texts: int
    seconds: float
    usage: Usage
    work: Work
    tokens_per_call: float
    queued: int

    @property
    def rate(self) -> float:
        return self.texts / self.seconds


@dataclass(slots=True)
class Measured:
    """All that was measured of a point: `rounds` with messages of 64 texts, `single_rounds` of
    one."""

    start_s: float
    memory_bytes: int = 0
    latencies_s: list[float] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)
    single_rounds: list[Round] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Texts a second: the median round."""
        return median(one.rate for one in self.rounds or self.single_rounds)

    @property
    def rates(self) -> list[float]:
        """Of the rounds with messages of 64 texts."""
        return [one.rate for one in self.rounds]

    @property
    def last(self) -> Round:
        """The latest round."""
        return (self.rounds or self.single_rounds)[-1]


@dataclass(slots=True)
class Door:
    """Texts accepted a second by number of web processes, in rounds beside each other."""

    rates: dict[int, list[float]] = field(default_factory=dict)

    def rate(self, count: int) -> float:
        return median(self.rates[count])

    def choose(self, drain_rate: float) -> int:
        """The fewest that accept `ENOUGH` times what is drained, else what the fastest do."""
        fastest = max(map(self.rate, self.rates))
        wanted = min(ENOUGH * drain_rate, ALIKE * fastest)
        return min(count for count in self.rates if self.rate(count) >= wanted)
