"""Seeded kills. They follow the work, not the clock: each has its share of it, on any machine."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from random import Random
from threading import Event

from tests.acceptance.chaos.stack import Stack, read_settled
from tests.processes import wait_until


class Victim(StrEnum):
    CHILD = "pool child"
    WORKER = "worker main"
    WEB = "web"
    REDIS = "Redis"
    STORE = "store"


@dataclass(frozen=True, slots=True)
class Strike:
    """Kill once so many documents are settled, and a moment more has passed."""

    settled: int
    delay_s: float
    victim: Victim


@dataclass
class Storm:
    """Kills by plan, and notes how long it took until documents were settled again."""

    stack: Stack
    chance: Random
    kills: Counter[Victim] = field(default_factory=Counter)
    recoveries_s: list[tuple[float, Victim]] = field(default_factory=list)
    revived: list[str] = field(default_factory=list)
    _open: list[tuple[float, int, Victim]] = field(default_factory=list)

    def rage(self, strikes: list[Strike], *, timeout_s: float) -> None:
        """All strikes in their order; an error when the work does not get that far."""
        deadline = time.monotonic() + timeout_s
        for strike in strikes:
            self._wait(partial(self._reached, strike.settled), strike, deadline)
            Event().wait(strike.delay_s)  # any moment of the work, not always the same
            before, struck_at = self._settled(), time.monotonic()
            self._wait(self._blow(strike.victim), strike, deadline)
            self.kills[strike.victim] += 1
            self._open.append((struck_at, before, strike.victim))

    def watch(self) -> int:
        """How many are settled; notes recoveries, and starts what ended by itself."""
        self.revived += self.stack.revive()
        return self._settled()

    def _wait(self, condition: Callable[[], object], strike: Strike, deadline: float) -> None:
        left_s = max(deadline - time.monotonic(), 0.1)
        wait_until(condition, f"{strike}, after {dict(self.kills)}", timeout_s=left_s)

    def _reached(self, settled: int) -> bool:
        return self.watch() >= settled

    def _blow(self, victim: Victim) -> Callable[[], bool]:
        blows: dict[Victim, Callable[[], bool]] = {
            Victim.CHILD: partial(self.stack.kill_child, self.chance),
            Victim.WORKER: partial(self.stack.kill_worker, self.chance),
            Victim.WEB: self.stack.restart_web,
            Victim.REDIS: self.stack.restart_redis,
            Victim.STORE: self.stack.restart_store,
        }
        return blows[victim]

    def _settled(self) -> int:
        settled = read_settled(self.stack.redis.client)
        if settled is None:
            return -1
        now = time.monotonic()
        still = []
        for struck_at, before, victim in self._open:
            if settled > before:
                self.recoveries_s.append((now - struck_at, victim))
            else:
                still.append((struck_at, before, victim))
        self._open = still
        return settled


def plan_strikes(kills: Mapping[Victim, int], documents: int, chance: Random) -> list[Strike]:
    """At random points of the first four fifths of the work, so that some come close together."""
    return sorted(_strikes(kills, documents, chance), key=lambda strike: strike.settled)


def _strikes(kills: Mapping[Victim, int], documents: int, chance: Random) -> Iterator[Strike]:
    for victim, count in kills.items():
        for _ in range(count):
            settled = chance.randrange(1, documents * 4 // 5)
            yield Strike(settled, chance.uniform(0, 0.5), victim)
