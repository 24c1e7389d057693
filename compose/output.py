"""The lines that a local stack prints: whole, and each under its service's name.

Only `compose` imports it.
"""

import threading
from collections import deque
from typing import IO, TextIO

import click

LAUNCHER = "embedmill"
COLOURS = {"redis": "red", "qdrant": "magenta", "worker": "green", "web": "cyan", "flower": "blue"}
LINE_BYTES = 64 * 1024
LAST_LINES = 15


class Output:
    """One stream for many threads. Without a reader (`embedmill up | head`) lines are dropped:
    a stack does not stop because nobody looks at it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def line(self, name: str, text: str) -> None:
        """One line of a service. Colours are stripped unless the stream is a terminal."""
        prefix = click.style(f"{name:<{len(LAUNCHER)}} |", fg=COLOURS.get(name))
        self._write(f"{prefix} {text}")

    def say(self, text: str) -> None:
        """A line of the launcher itself."""
        self.line(LAUNCHER, text)

    def block(self, text: str) -> None:
        """Several lines as they are, nothing between them."""
        self._write(text)

    def _write(self, text: str) -> None:
        with self._lock:
            try:
                click.echo(text, file=self._stream)
            except (OSError, ValueError):
                return


class Reader(threading.Thread):
    """Carries a child's output to ours until its end, and remembers the last lines."""

    def __init__(self, name: str, pipe: IO[bytes], output: Output) -> None:
        super().__init__(name=f"output of {name}", daemon=True)
        self._service = name
        self._pipe = pipe
        self._output = output
        self._last: deque[str] = deque(maxlen=LAST_LINES)

    def run(self) -> None:
        with self._pipe:
            while chunk := self._pipe.readline(LINE_BYTES):
                text = chunk.decode(errors="replace").rstrip()
                self._last.append(text)
                self._output.line(self._service, text)

    def last_lines(self) -> str:
        """Those that say why it ended, where there are such; else all."""
        lines = [line for line in list(self._last) if line]
        reasons = [line for line in lines if line.startswith("embedmill:") or "CRITICAL" in line]
        return "\n".join(f"    {line}" for line in reasons or lines)
