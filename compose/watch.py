"""The verb `embedmill watch`: the queue and every process, once a second; only `compose.cli`
imports it.

It reads Redis, as any number of others may, and writes nothing. While Redis is away it says so and
goes on looking.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Protocol, Self

import click
import redis
from rich.console import Console
from rich.live import Live

from compose.addresses import find_services
from compose.interruption import Interruption, interruption_by_signals
from compose.panel import draw
from compose.sample import Sample, Sampler, to_json, to_line
from tasks.broker import connect
from tasks.errors import BrokerDown, EmbedError
from tasks.settings import Settings, get_settings

INTERVAL_S = 1.0
POLL_S = 0.1
"""How soon it notices that it shall end."""

Seen = Sample | BrokerDown


class Screen(Protocol):
    """A context, so that a terminal is left as it was."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def show(self, seen: Seen, at: float) -> None: ...


def run(*, plain: bool, as_json: bool, count: int | None) -> None:
    """Until Ctrl-C, or so many times. Raises StackError when stack.json is damaged."""
    screen = choose_screen(Console(), plain=plain, as_json=as_json)
    with interruption_by_signals() as interruption, Eye(get_settings()) as eye, screen:
        for _ in ticks(interruption, count):
            at = time.time()
            screen.show(eye.look(at), at)


def choose_screen(console: Console, *, plain: bool, as_json: bool) -> Screen:
    """A live view on a terminal, else lines."""
    if as_json:
        return Lines(to_json)
    return Lines(to_line) if plain or not console.is_terminal else Panel(console)


def ticks(interruption: Interruption, count: int | None) -> Iterator[int]:
    """One a second from now on, whatever is done between them takes; ends when asked to."""
    began_s = time.monotonic()
    number = 0
    while not interruption.requests:
        yield number
        number += 1
        if number == count:
            return
        due_s = began_s + number * INTERVAL_S
        while (left_s := due_s - time.monotonic()) > 0 and not interruption.requests:
            time.sleep(min(left_s, POLL_S))


class Eye:
    """A connection to the Redis that runs, wherever it runs now."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._found = find_services(settings)
        self._client: redis.Redis = connect(self._found)
        self._sampler = Sampler()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def look(self, at: float) -> Seen:
        """What there is to see, or why there is nothing."""
        try:
            return self._sampler.take(self._client, self._found, at)
        except BrokerDown as error:
            self._find_again()
            return error

    def _find_again(self) -> None:
        """A stack that was started anew may have another port."""
        with suppress(EmbedError):
            found = find_services(self._settings)
            if found.broker_url != self._found.broker_url:
                self._client.close()
                self._found, self._client = found, connect(found)


class Lines:
    """A line each time."""

    def __init__(self, write: Callable[[Seen, float], str]) -> None:
        self._write = write

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, seen: Seen, at: float) -> None:
        click.echo(self._write(seen, at))


class Panel:
    """A view that is drawn anew in its place."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False)
        self._last: Sample | None = None

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, seen: Seen, at: float) -> None:
        trouble = seen if isinstance(seen, BrokerDown) else None
        self._last = self._last if isinstance(seen, BrokerDown) else seen
        self._live.update(draw(self._last, trouble, at), refresh=True)
