"""How far an ingestion is, on a terminal or in a log; only `compose` imports it."""

import time
from dataclasses import dataclass
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn

LINE_INTERVAL_S = 5.0


@dataclass(frozen=True, slots=True)
class Reading:
    """Texts accepted, done, and settled in any way; `total` is estimated until all is read."""

    accepted: int
    done: int
    settled: int
    total: int | None
    seconds: float

    @property
    def rate_per_s(self) -> float:
        return self.settled / self.seconds if self.seconds > 0 else 0.0

    @property
    def eta_s(self) -> float | None:
        """Seconds until all is settled, where that can be told."""
        if self.total is None or not self.rate_per_s:
            return None
        return max(self.total - self.settled, 0) / self.rate_per_s

    def __str__(self) -> str:
        parts = [f"accepted {self.accepted:,}", f"done {self.done:,}"]
        if lost := self.settled - self.done:
            parts.append(f"failed or cancelled {lost:,}")
        parts.append(f"{self.rate_per_s:,.0f} texts/s")
        if self.eta_s is not None:
            parts.append(f"{format_duration(self.eta_s)} left")
        return ", ".join(parts)


class Display(Protocol):
    """A context, so that a bar is taken away at the end."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def show(self, reading: Reading) -> None: ...

    def say(self, text: str) -> None:
        """A line that stays."""
        ...


def make_display(console: Console) -> Display:
    """A bar on a terminal, else a line now and then."""
    return Bar(console) if console.is_terminal else Lines(console)


class Bar:
    """A bar of settled texts, with what they are waiting for beside it."""

    def __init__(self, console: Console) -> None:
        columns = (SpinnerColumn(), BarColumn(bar_width=30), TextColumn("{task.description}"))
        self._progress = Progress(*columns, console=console, transient=True)
        self._task: TaskID = self._progress.add_task("reading", total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, reading: Reading) -> None:
        self._progress.update(
            self._task,
            completed=reading.settled,
            total=reading.total,
            description=str(reading),
        )

    def say(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)


class Lines:
    """A line every few seconds, for logs."""

    def __init__(self, console: Console, *, interval_s: float = LINE_INTERVAL_S) -> None:
        self._console = console
        self._interval_s = interval_s
        self._last_s = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, reading: Reading) -> None:
        now_s = time.monotonic()
        if now_s - self._last_s >= self._interval_s:
            self._last_s = now_s
            self.say(str(reading))

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def format_duration(seconds: float) -> str:
    """As people say it: 8 s, 2 min 5 s, 1 h 2 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
