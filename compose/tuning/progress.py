"""How far the measuring is, on a terminal or in a log; only `compose.tune` imports it."""

from collections.abc import Callable
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text

from compose.progress import format_duration

Estimate = Callable[[], tuple[float, float]]
"""Seconds spent, and seconds that are expected to be left."""


class Display(Protocol):
    """A context, so that a bar is taken away at the end."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def doing(self, _text: str, /) -> None:
        """What is going on now."""
        ...

    def say(self, text: str) -> None:
        """A line that stays."""
        ...


def make_display(console: Console, estimate: Estimate) -> Display:
    """A bar on a terminal, else lines of what has been found."""
    return Bar(console, estimate) if console.is_terminal else Lines(console)


class Bar:
    def __init__(self, console: Console, estimate: Estimate) -> None:
        self._estimate = estimate
        columns = (SpinnerColumn(), BarColumn(bar_width=30), _Eta(estimate))
        self._progress = Progress(
            *columns, TextColumn("{task.description}"), console=console, transient=True
        )
        self._task = self._progress.add_task("starting", total=1.0)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def doing(self, text: str, /) -> None:
        spent_s, left_s = self._estimate()
        share = spent_s / max(spent_s + left_s, 1e-6)
        self._progress.update(self._task, completed=share, description=text)

    def say(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)


class Lines:
    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def doing(self, _text: str, /) -> None:
        return None

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class _Eta(ProgressColumn):
    """Asked for anew at each refresh."""

    def __init__(self, estimate: Estimate) -> None:
        super().__init__()
        self._estimate = estimate

    def render(self, _task: Task) -> Text:
        return Text(f"about {format_duration(self._estimate()[1])} left")
