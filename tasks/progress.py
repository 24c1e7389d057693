"""A job's progress for people: a bar on a terminal, else a line now and then. Any package may
import it; `tasks.client` does."""

import time
from collections.abc import Callable
from typing import TextIO

from tasks.snapshot import JobSnapshot

BAR_CHARACTERS = 30
LINE_INTERVAL_S = 5.0


class Meter:
    """Writes a job's state to a stream, each time it is shown one."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._is_terminal = stream.isatty()
        self._last_s = clock()

    def show(self, job: JobSnapshot) -> None:
        """On a terminal in place of the line before; the last one stays."""
        settled = job.state != "open"
        if self._is_terminal:
            self._stream.write(f"\r{_bar(job)} {describe(job)}\x1b[K{chr(10) * settled}")
            self._stream.flush()
        elif settled or self._clock() - self._last_s >= LINE_INTERVAL_S:
            self._last_s = self._clock()
            self._stream.write(f"{describe(job)}\n")
            self._stream.flush()


def describe(job: JobSnapshot) -> str:
    """In words, as in "640 of 1,000 texts, 3 failed, 120 texts/s, 3 s left"."""
    parts = [f"{job.settled:,} of {job.accepted:,} texts"]
    parts += [f"{n:,} {what}" for n, what in _troubles(job) if n]
    parts.append(f"{job.rate_per_s:,.0f} texts/s")
    if job.state == "open" and job.eta_s is not None:
        parts.append(f"{job.eta_s:,.0f} s left")
    return ", ".join(parts)


def _troubles(job: JobSnapshot) -> tuple[tuple[int, str], ...]:
    return (job.failed, "failed"), (job.cancelled, "cancelled")


def _bar(job: JobSnapshot) -> str:
    filled = BAR_CHARACTERS * job.settled // max(job.accepted, 1)
    return "#" * filled + "-" * (BAR_CHARACTERS - filled)
