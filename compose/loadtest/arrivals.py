"""When requests of an open loop are due: pure, in seconds from the start."""

from collections.abc import Iterator
from itertools import count
from random import Random
from typing import Literal

Spacing = Literal["poisson", "constant"]


def arrivals(rate_per_s: float, spacing: Spacing, chance: Random) -> Iterator[float]:
    """Without end. `poisson`: as of many users who know nothing of each other, in bursts and
    pauses; `constant`: evenly."""
    if spacing == "constant":
        yield from (number / rate_per_s for number in count())
    at_s = 0.0
    while True:
        at_s += chance.expovariate(rate_per_s)
        yield at_s
