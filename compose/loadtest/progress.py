"""How far a load test is, on a terminal in one place, else in a line now and then."""

import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from compose.progress import LINE_INTERVAL_S


class Progress:
    """A context, so that the line is taken away at the end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._said_s = time.monotonic()

    def __enter__(self) -> "Progress":
        self._screen().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._screen().__exit__(*error)

    def show(self, text: str) -> None:
        now_s = time.monotonic()
        if self._console.is_terminal:
            self._live.update(Text(text), refresh=True)
        elif now_s - self._said_s >= LINE_INTERVAL_S:
            self._said_s = now_s
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _screen(self) -> AbstractContextManager[object]:
        return self._live if self._console.is_terminal else nullcontext()
