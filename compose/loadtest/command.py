"""The verb: options in, a report out; only `compose.cli` imports it."""

import asyncio
import secrets
import sys
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

import click
import uvloop
from rich.console import Console

from compose.addresses import find_web
from compose.errors import WebDown, WebRefused
from compose.interruption import wanted_signals
from compose.loadtest.arrivals import Spacing, arrivals
from compose.loadtest.connection import Address, Connection, Reply, Unanswered
from compose.loadtest.lag import Lag
from compose.loadtest.loops import Load, closed_loop, open_loop
from compose.loadtest.progress import Progress
from compose.loadtest.report import Report, describe_progress
from compose.loadtest.settling import Settling
from compose.loadtest.tally import Tally, read_detail, read_object
from compose.loadtest.texts import (
    Mix,
    Target,
    built_in_texts,
    embed_target,
    embeddings_target,
    file_texts,
)
from tasks.settings import get_settings
from tasks.urls import redact

SETTLE_S = 60.0
"""After the last request, for the jobs that are followed."""
TICK_S = 0.5
UNDECIDED = frozenset({429, 503})
"""Answers that say nothing against a request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `embedmill loadtest` can be told. Without a rate it is a closed loop of `clients`; with
    one, an open loop over at most `connections`."""

    target: Literal["embed", "embeddings"] = "embed"
    rate: float | None = None
    arrivals: Spacing = "poisson"
    clients: int = 8
    connections: int = 256
    duration: float = 10.0
    timeout: float = 30.0
    texts: int = 1
    mix: Mix = "mixed"
    file: str | None = None
    collection: str = "loadtest"
    model: str | None = None
    settled: bool = False

    @property
    def plan(self) -> dict[str, Any]:
        """As the report repeats it."""
        loop = (
            {"clients": self.clients}
            if self.rate is None
            else {"rate": self.rate, "arrivals": self.arrivals, "connections": self.connections}
        )
        source = {"mix": self.mix} if self.file is None else {"file": self.file}
        return {"target": self.target, **loop, "request_texts": self.texts, **source}


def run(url: str | None, options: Options, *, as_json: bool) -> None:
    """Exits with 1 when a request ended in an error, or none was answered.

    Raises InputError, StackError, WebDown, WebRefused.
    """
    found = find_web(get_settings(), url)
    report = uvloop.run(Run(found, options).measure(Progress(Console(stderr=True))))
    if as_json:
        click.echo(report.to_json())
    else:
        click.echo(f"POST {redact(found)}{_target(options).path}")
        Console().print(report.draw())
        if options.target == "embed":
            click.echo(f"Collection {options.collection} holds the texts: delete it when you like.")
    sys.exit(0 if report.succeeded else 1)


class Run:
    """One load test."""

    def __init__(self, url: str, options: Options) -> None:
        """Raises InputError, WebRefused."""
        key = get_settings().api_key
        self._options = options
        self._url = url
        self._address = Address(url, key.get_secret_value() if key else None)
        self._target = _target(options)
        texts = built_in_texts(options.mix) if options.file is None else file_texts(options.file)
        self._bodies = self._target.bodies(texts, options.texts, 10**8 + secrets.randbelow(10**8))
        self._tally = Tally(options.texts)
        self._settling = Settling(self._connect()) if options.settled else None

    def _connect(self) -> Connection:
        return Connection(self._address, self._options.timeout)

    async def measure(self, progress: Progress) -> Report:
        """Until the time is over, or an interruption. Raises WebDown, WebRefused."""
        await self._probe()
        stop = asyncio.Event()
        with progress, _set_by_signals(stop):
            lag = Lag()
            load = self._load()
            helpers = [lag.watch(), self._show(load, progress)]
            helpers += [self._settling.follow()] if self._settling else []
            tasks = [asyncio.create_task(helper) for helper in helpers]
            try:
                await _run_until(stop, self._send(load))
                seconds, generator = load.clock() - load.began_s, lag.read()
                if self._settling:
                    await _run_until(stop, self._settling.wait(SETTLE_S))
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        return Report(self._options.plan, seconds, self._tally, generator, self._settling)

    async def _probe(self) -> None:
        """One request that is not counted: what is wrong with all is said at once."""
        shown = redact(self._url)
        with closing(self._connect()) as carrier:
            try:
                reply = await carrier.ask("POST", self._target.path, next(self._bodies))
            except Unanswered as error:
                raise WebDown(f"no web answers at {shown} ({error.code})") from error
        if reply.status in UNDECIDED:
            return
        if not reply.succeeded:
            raise WebRefused(f"{shown}: {read_detail(reply)}", status=reply.status)
        if self._target.sign not in read_object(reply):
            raise WebRefused(f"{shown} does not answer as Embedmill does", status=reply.status)

    def _load(self) -> Load:
        def follow(reply: Reply, latency_s: float) -> None:
            if self._settling:
                self._settling.add(reply, latency_s)

        duration_s = self._options.duration
        return Load(self._target.path, self._bodies, duration_s, self._tally, follow)

    async def _send(self, load: Load) -> None:
        options = self._options
        count = options.clients if options.rate is None else options.connections
        with ExitStack() as ends:
            carriers = [ends.enter_context(closing(self._connect())) for _ in range(count)]
            if options.rate is None:
                await closed_loop(load, carriers)
            else:
                due = arrivals(options.rate, options.arrivals, Random())
                await open_loop(load, carriers, due)

    async def _show(self, load: Load, progress: Progress) -> None:
        while True:
            passed_s = load.clock() - load.began_s
            unsettled = self._settling.unsettled if self._settling else 0
            text = describe_progress(self._tally, passed_s, load.duration_s, unsettled)
            progress.show(text)
            await asyncio.sleep(TICK_S)


def _target(options: Options) -> Target:
    if options.target == "embed":
        return embed_target(options.collection)
    return embeddings_target(options.model or get_settings().model_name)


@contextmanager
def _set_by_signals(stop: asyncio.Event) -> Iterator[None]:
    """Ctrl-C, SIGTERM and a closed terminal set it."""
    loop, numbers = asyncio.get_running_loop(), wanted_signals()
    for number in numbers:
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def _run_until(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """To its end, or cancel it when `stop` is set before. Raises what it raises."""
    working, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not working.done():
        working.cancel()
    with suppress(asyncio.CancelledError):
        await working
