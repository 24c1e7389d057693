"""How many uploads run at once, and how long they wait. Used inside `webapp` only."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from tasks.errors import ShuttingDown, TooManyUploads, UploadSilent

BUSY_RETRY_AFTER_S = 5
SILENCE_S = 60.0
"""Without a byte of a body. A client that is gone without a word would hold its place for ever."""


class UploadPlaces:
    """How many uploads run at once in this process, each with a few MB of memory.

    After `close` nothing is waited for any more: the server ends when its last request has.
    """

    def __init__(self, most: int, *, silence_s: float = SILENCE_S) -> None:
        self._most, self._taken = most, 0
        self._silence_s = silence_s
        self._closed = asyncio.Event()
        self._receiving: set[asyncio.Timeout] = set()

    @contextmanager
    def take(self) -> Iterator[None]:
        """For the block. Raises TooManyUploads."""
        if self._taken == self._most:
            raise TooManyUploads(
                f"{self._most} uploads run already", retry_after_s=BUSY_RETRY_AFTER_S
            )
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1

    @asynccontextmanager
    async def receiving(self) -> AsyncIterator[None]:
        """Around waiting for the client. Raises UploadSilent, ShuttingDown."""
        self._refuse_when_closed()
        try:
            async with asyncio.timeout(self._silence_s) as limit:
                self._receiving.add(limit)
                try:
                    yield
                finally:
                    self._receiving.remove(limit)
        except TimeoutError as error:
            self._refuse_when_closed()
            raise UploadSilent(f"nothing has come for {self._silence_s:.0f} s") from error

    async def pause(self, seconds: float) -> None:
        """Raises ShuttingDown."""
        try:
            async with asyncio.timeout(seconds):
                await self._closed.wait()
        except TimeoutError:
            return
        self._refuse_when_closed()

    def close(self) -> None:
        """End all waiting."""
        self._closed.set()
        for limit in self._receiving:
            if not limit.expired():
                limit.reschedule(0.0)

    def _refuse_when_closed(self) -> None:
        if self._closed.is_set():
            raise ShuttingDown("this web process ends")
