"""Comparisons as they are measured: two workers take turns until it is sure which is faster.

Only `compose.tuning` imports it.
"""

import time
from collections.abc import Callable
from statistics import median

from compose.errors import Interrupted, OutOfTime, StackError
from compose.tuning.judging import MOST_PAIRS, Judgement, Noise, Verdict, judge
from compose.tuning.measurements import Measured, Round
from compose.tuning.mill import Mill, Worker
from compose.tuning.points import Axis, Point
from compose.tuning.usage import available_bytes

LATENCIES = 8
LEAST_START_S = 60.0
ROUND_LIMIT_S = 60.0
ROOM = 1.1
"""Memory has to be free for so many times what a worker is expected to take."""
FIRST_DUEL_S = 30.0
"""What a comparison is taken to last before any was made; on two cores it takes about so long."""


class Budget:
    """How long all may take, from its making."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._began_s = time.monotonic()

    @property
    def spent_s(self) -> float:
        return time.monotonic() - self._began_s

    @property
    def left_s(self) -> float:
        return self.seconds - self.spent_s


class Duels:
    """Keeps the worker of the best point; every challenger gets a fresh one.

    `reserved_s` of the budget are left for what comes after the comparisons.
    """

    def __init__(
        self,
        mill: Mill,
        budget: Budget,
        *,
        seconds: float,
        reserved_s: float,
        on_doing: Callable[[str], None],
    ) -> None:
        self._mill, self._budget = mill, budget
        self._seconds = seconds
        self.reserved_s = reserved_s
        self._on_doing = on_doing
        self.noise = Noise()
        self.measured: dict[Point, Measured] = {}
        self._workers: dict[Point, Worker] = {}
        self._took_s: list[float] = []

    def begin(self, default: Point) -> None:
        """Measure the default, however long it takes: without it nothing can be said. The first
        round, whose length is a guess, counts only where there is no time for another.

        Raises OutOfTime, StackError, Interrupted.
        """
        worker = self._start(default)
        self._round(worker, Axis.CONCURRENCY)
        if self._left_s() > self.duel_s:
            self.measured[default].rounds.clear()
            self._round(worker, Axis.CONCURRENCY)

    def compare(self, axis: Axis, challenger: Point, incumbent: Point) -> Judgement:
        """Raises OutOfTime when it would not end in time, StackError, Interrupted."""
        began_s = time.monotonic()
        if self._left_s() < self.duel_s:
            raise OutOfTime("there is no time for another comparison")
        if note := self._too_large(challenger, incumbent):
            return Judgement(Verdict.WORSE, note=note)
        if incumbent not in self._workers:
            self._start(incumbent)
        judgement = self._meet(axis, challenger, incumbent)
        self._took_s.append(time.monotonic() - began_s)
        return judgement

    def end(self) -> None:
        """Kill all workers."""
        for point in list(self._workers):
            self._kill(point)

    @property
    def duel_s(self) -> float:
        """What the next comparison is expected to take."""
        return median(self._took_s) if self._took_s else min(FIRST_DUEL_S, self._budget.seconds / 6)

    def _meet(self, axis: Axis, challenger: Point, incumbent: Point) -> Judgement:
        """A duel, and the loser is gone after it; one that cannot be held is lost."""
        try:
            rival = self._workers.get(challenger) or self._start(challenger)
            judgement = self._duel(axis, rival, self._workers[incumbent])
        except Interrupted:
            raise
        except StackError as error:
            return self._recover(error)
        better = judgement.verdict is Verdict.BETTER
        self._kill(incumbent if better else challenger)
        return judgement

    def _recover(self, error: StackError) -> Judgement:
        """A process has ended by itself, or never came up, as for want of memory. What it held is
        let go with the rest; when it is not the challenger's fault, this raises the error."""
        self.end()
        self._mill.check()
        self._mill.clear()
        return Judgement(Verdict.WORSE, note=error.detail.splitlines()[0])

    def _duel(self, axis: Axis, rival: Worker, holder: Worker) -> Judgement:
        ratios: list[float] = []
        judgement = Judgement(Verdict.UNSURE)
        while judgement.verdict is Verdict.UNSURE and len(ratios) < MOST_PAIRS:
            if ratios and self._left_s() < 0:
                break
            self._on_doing(f"{rival.point} beside {holder.point}, pair {len(ratios) + 1}")
            # in turns who comes first, so that a drift of the machine favours neither
            order = (rival, holder) if len(ratios) % 2 else (holder, rival)
            try:
                rates = {worker.pid: self._round(worker, axis).rate for worker in order}
            except OutOfTime as error:
                if ratios:
                    break
                if self._left_s() <= 0:
                    raise
                return Judgement(Verdict.WORSE, note=error.detail)
            ratios.append(rates[rival.pid] / rates[holder.pid])
            judgement = judge(ratios, self.noise)
        self.noise.learn(ratios)
        return judgement

    def _round(self, worker: Worker, axis: Axis) -> Round:
        """Prefetch counts messages, so it is compared where each text is one."""
        single = axis is Axis.PREFETCH
        record = self.measured[worker.point]
        is_first = len(self.measured) == 1
        limit_s = ROUND_LIMIT_S if is_first else self._budget.left_s
        found = self._mill.measure(
            worker,
            seconds=self._seconds,
            message_texts=1 if single else 64,
            limit_s=min(limit_s, ROUND_LIMIT_S),
        )
        (record.single_rounds if single else record.rounds).append(found)
        if not record.memory_bytes:
            record.memory_bytes = self._mill.memory_bytes(worker)
        return found

    def _start(self, point: Point) -> Worker:
        """Warm, and its latency measured."""
        self._on_doing(f"{point}: loading the model")
        began_s = time.monotonic()
        limit_s = max(self._left_s(), LEAST_START_S)
        worker = self._workers[point] = self._mill.start(point, limit_s=limit_s)
        record = self.measured.setdefault(point, Measured(time.monotonic() - began_s))
        record.latencies_s += self._mill.latencies_s(worker, LATENCIES)[1:]  # the first makes ready
        return worker

    def _kill(self, point: Point) -> None:
        self._mill.kill(self._workers.pop(point))

    def _too_large(self, challenger: Point, incumbent: Point) -> str:
        each = self.measured[incumbent].memory_bytes / (incumbent.concurrency + 1)
        wanted, free = ROOM * each * (challenger.concurrency + 1), available_bytes()
        if wanted <= free:
            return ""
        return f"it would take about {wanted / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free"

    def _left_s(self) -> float:
        return self._budget.left_s - self.reserved_s
