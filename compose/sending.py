"""Batches to the web, a few requests at a time; `compose.ingest` uses it."""

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from queue import Empty, SimpleQueue
from threading import Event
from types import TracebackType
from typing import Self

import httpx

from compose.errors import InputError, WebRefused
from compose.items import Batch, identities
from compose.patience import Patience
from compose.web_client import WebClient
from webapp.schemas import Accepted

REQUESTS_IN_FLIGHT = 4
TICK_S = 0.2


class Sender:
    """A context whose end waits for the requests that are in flight."""

    def __init__(
        self,
        client: WebClient,
        patience: Patience,
        options: dict[str, str],
        *,
        key: Callable[[Batch], str],
        stop: Event,
        tick: Callable[[], None],
    ) -> None:
        """`key` tells one batch from all others, in whatever run; `tick` is called again and again
        while something is waited for."""
        self._client = client
        self._patience = patience
        self._options = options
        self._key = key
        self._stop = stop
        self._tick = tick
        self._pool = ThreadPoolExecutor(REQUESTS_IN_FLIGHT, thread_name_prefix="send")
        self._in_flight: dict[Future[None], frozenset[str]] = {}
        self._accepted: SimpleQueue[tuple[Accepted, Batch]] = SimpleQueue()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._stop.set()
        self._pool.shutdown(cancel_futures=True)

    def send(self, batch: Batch) -> None:
        """Hand it over as soon as there is room. What is the same document twice, by its id or
        its text, is sent again when the earlier one has been accepted: the last one wins.

        Raises InputError for a document that is refused, also about an earlier batch; WebDown,
        WebRefused.
        """
        own = identities(batch)
        while len(self._in_flight) == REQUESTS_IN_FLIGHT or self._sends_any(own):
            self._wait()
        self._in_flight[self._pool.submit(self._deliver, batch)] = own

    def finish(self) -> None:
        """Until all is accepted. Raises as `send` does."""
        while self._in_flight:
            self._wait()

    def take_accepted(self) -> list[tuple[Accepted, Batch]]:
        """What was accepted since the last call."""
        taken = []
        while True:
            try:
                taken.append(self._accepted.get_nowait())
            except Empty:
                return taken

    def _sends_any(self, own: frozenset[str]) -> bool:
        return any(own & theirs for theirs in self._in_flight.values())

    def _wait(self) -> None:
        done, _ = wait(self._in_flight, TICK_S, FIRST_COMPLETED)
        for future in done:
            del self._in_flight[future]
            future.result()
        self._tick()

    def _deliver(self, batch: Batch) -> None:
        """In a thread of the pool. What is too large as one request is sent as two."""
        bodies, key = [item.body for item in batch], self._key(batch)
        try:
            receipt = self._patience.call(lambda: self._client.embed(bodies, self._options, key))
        except WebRefused as error:
            if error.status != httpx.codes.REQUEST_ENTITY_TOO_LARGE or len(batch) == 1:
                raise _blame(error, batch) from error
        else:
            self._accepted.put((receipt, batch))
            return
        middle = len(batch) // 2
        self._deliver(batch[:middle])
        self._deliver(batch[middle:])


def _blame(error: WebRefused, batch: Batch) -> InputError | WebRefused:
    """The document's own place, when it is known which one it is."""
    if len(batch) == 1:
        return InputError(f"{batch[0].place}: {error.detail}")
    if error.index is not None and error.index < len(batch):
        return InputError(f"{batch[error.index].place}: {error.detail}")
    return error
