"""The two ways of sending: a number of clients one request after another, or arrivals at a rate.

Both end when the load's time is over, and wait for what they have sent. Cancelled, they count what
is unfinished.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from compose.loadtest.connection import Reply, Unanswered
from compose.loadtest.tally import TOO_MANY_REQUESTS, Tally, read_code

TIMER_S = 0.002
"""Timers are no finer: what is late by less counts from when it was sent."""
ERROR_PAUSE_S = 0.5
"""After an error that says nothing else: a web that is away is not called without end."""
WAITING_REQUESTS = 10_000
"""Refused requests of an open loop that wait for their next try at most."""


class Carrier(Protocol):
    """A connection, as `compose.loadtest.connection` has them."""

    async def ask(self, method: str, path: str, body: bytes = b"") -> Reply:
        """Raises Unanswered."""
        ...


_Free = asyncio.LifoQueue[Carrier]


@dataclass(slots=True)
class Load:
    """What is sent, for how long, and what has become of it."""

    path: str
    bodies: Iterator[bytes]
    duration_s: float
    tally: Tally
    on_success: Callable[[Reply, float], None]
    """Called with the answer and the request's latency."""
    clock: Callable[[], float] = time.monotonic
    began_s: float = field(init=False)
    waiting: int = 0
    """Refused requests that wait for their next try."""

    def __post_init__(self) -> None:
        self.began_s = self.clock()

    @property
    def left_s(self) -> float:
        return max(self.began_s + self.duration_s - self.clock(), 0.0)

    async def pause(self, seconds: float) -> None:
        """No longer than the load lasts."""
        if seconds > 0:
            await asyncio.sleep(min(seconds, self.left_s))

    async def wait_for_retry(self, seconds: float) -> bool:
        """False where it is given up: the time would come after the end, or too many wait."""
        if seconds >= self.left_s or self.waiting >= WAITING_REQUESTS:
            self.tally.given_up += 1
            return False
        self.waiting += 1
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.tally.given_up += 1
            raise
        finally:
            self.waiting -= 1
        return True

    async def attempt(self, carrier: Carrier, body: bytes, intended_s: float) -> Reply | None:
        """Send once and count what comes; None where nothing came."""
        tally = self.tally
        try:
            reply = await carrier.ask("POST", self.path, body)
        except Unanswered as error:
            tally.errors[error.code] += 1
            return None
        except asyncio.CancelledError:
            tally.unfinished += 1
            tally.answer.record(self.clock() - intended_s)
            raise
        if reply.status == TOO_MANY_REQUESTS:
            tally.refused += 1
        elif reply.succeeded:
            latency_s = self.clock() - intended_s
            tally.answered += 1
            tally.answer.record(latency_s)
            self.on_success(reply, latency_s)
        else:
            tally.errors[read_code(reply)] += 1
        return reply


async def closed_loop(load: Load, carriers: Sequence[Carrier]) -> None:
    """A client a connection: the next request goes out when the last is answered, so a slow web is
    asked less often."""
    await asyncio.gather(*(_client(load, carrier) for carrier in carriers))


async def _client(load: Load, carrier: Carrier) -> None:
    while load.left_s:
        body, first_s = next(load.bodies), load.clock()
        reply = await load.attempt(carrier, body, first_s)
        while _refused(reply):
            if not await load.wait_for_retry(_pause_s(reply)):
                return
            reply = await load.attempt(carrier, body, load.clock())
        if _succeeded(reply):
            load.tally.acceptance.record(load.clock() - first_s)
        else:
            await load.pause(_pause_s(reply))


async def open_loop(load: Load, carriers: Sequence[Carrier], arrivals: Iterator[float]) -> None:
    """Requests go out when they are due, whatever became of earlier ones; their latency counts from
    then on, also where no connection was free."""
    free: _Free = asyncio.LifoQueue()  # no more connections are opened than are needed
    for carrier in carriers:
        free.put_nowait(carrier)
    due_s = next(arrivals)
    try:
        async with asyncio.TaskGroup() as sent:
            while due_s < load.duration_s:
                await load.pause(load.began_s + due_s - load.clock())
                taken = await _take(load, free)
                if taken is None:
                    break
                sent.create_task(_visit(load, free, taken, load.began_s + due_s))
                due_s = next(arrivals)
                await asyncio.sleep(0)
    finally:
        _count_unsent(load, due_s, arrivals)


async def _take(load: Load, free: _Free) -> Carrier | None:
    """None when no connection becomes free before the end."""
    if not free.empty():
        return free.get_nowait()
    try:
        async with asyncio.timeout(load.left_s):
            return await free.get()
    except TimeoutError:
        return None


async def _visit(load: Load, free: _Free, carrier: Carrier, due_s: float) -> None:
    """One arrival, sent again as often as it is refused, when it was told to."""
    body = next(load.bodies)
    sent_s = load.clock()
    late = sent_s - due_s > TIMER_S
    load.tally.late += late
    first_s = intended_s = due_s if late else sent_s
    while True:
        try:
            reply = await load.attempt(carrier, body, intended_s)
        finally:
            free.put_nowait(carrier)
        if not _refused(reply):
            break
        if not await load.wait_for_retry(_pause_s(reply)):
            return
        intended_s = load.clock()
        carrier = await free.get()
    if _succeeded(reply):
        load.tally.acceptance.record(load.clock() - first_s)


def _count_unsent(load: Load, due_s: float, arrivals: Iterator[float]) -> None:
    """Left out, they would flatter the web: they count with the time they have waited so far."""
    elapsed_s = load.duration_s - load.left_s
    while due_s < elapsed_s:
        load.tally.unsent += 1
        load.tally.answer.record(elapsed_s - due_s)
        due_s = next(arrivals)


def _refused(reply: Reply | None) -> bool:
    return reply is not None and reply.status == TOO_MANY_REQUESTS


def _succeeded(reply: Reply | None) -> bool:
    return reply is not None and reply.succeeded


def _pause_s(reply: Reply | None) -> float:
    """Until the next try."""
    told_s = None if reply is None else reply.retry_after_s
    return ERROR_PAUSE_S if told_s is None else told_s
