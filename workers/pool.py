"""Celery's prefork pool: lost children are replaced at once, and time limits count a child's work
and not its waiting.

`workers.startup` chooses it before the pool is made. While the store is away children wait and hold
their jobs; a limit that counted that would fail documents which nothing is wrong with.
"""

import time
from collections.abc import Callable
from typing import Any

from billiard.pool import RUN
from celery.concurrency import asynpool as _asynpool
from celery.concurrency.prefork import TaskPool
from kombu import asynchronous as _asynchronous

from workers.waiting import read_waited_s

stock: Any = _asynpool
"""Its stubs lack what is overridden here."""
kombu_loop: Any = _asynchronous

DYING_S = 0.02
"""Between two looks whether a child that has closed its files has ended."""


class PatientAsynPool(stock.AsynPool):  # type: ignore[misc]
    """A limit that has passed is looked at again when the child has worked as long as that."""

    tell_of_end: Callable[[int], None] = staticmethod(lambda _pid: None)
    """Called with the id of each child that has ended while the pool is at work."""

    def _process_cleanup_queues(self, process: Any) -> None:
        super()._process_cleanup_queues(process)
        self.tell_of_end(process.pid)

    def _event_process_exit(self, hub: Any, proc: Any) -> None:
        """The kernel closes a process' files, which is what the hub sees, a moment before it can
        be waited for. A child that is not found dead yet would be missing for five seconds."""
        super()._event_process_exit(hub, proc)
        if proc in self._pool and self._state == RUN:
            hub.call_later(DYING_S, self._event_process_exit, hub, proc)

    def _on_soft_timeout(self, job: int, soft: float, hard: float | None, hub: Any) -> None:
        left_s = self._left_s(job, soft)
        if left_s > 0:
            self._look_again(left_s, job, self._on_soft_timeout, job, soft, hard, hub)
        else:
            super()._on_soft_timeout(job, soft, hard, hub)

    def _on_hard_timeout(self, job: int) -> None:
        result = self._cache.get(job)
        left_s = self._left_s(job, result._timeout) if result else 0.0
        if left_s > 0:
            self._look_again(left_s, job, self._on_hard_timeout, job)
        else:
            super()._on_hard_timeout(job)

    def _left_s(self, job: int, limit_s: float) -> float:
        """Seconds that the job's child may still work; zero when the job has ended."""
        result = self._cache.get(job)
        process = self._process_by_pid(result._worker_pid)[0] if result else None
        if process is None:
            return 0.0
        waited_s = read_waited_s(process.index)
        # without a wait the limit has passed: timers are not exact
        return limit_s - (time.monotonic() - result._time_accepted - waited_s) if waited_s else 0.0

    def _look_again(self, after_s: float, job: int, *call: Any) -> None:
        """Where billiard finds the timer, to cancel it when the job ends."""
        self._tref_for_id[job] = kombu_loop.get_event_loop().call_later(after_s, *call)


class PatientTaskPool(TaskPool):
    """What workers have instead of Celery's `prefork`."""

    Pool = PatientAsynPool
