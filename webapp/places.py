"""How many uploads run at once. Used inside `webapp` only."""

from collections.abc import Iterator
from contextlib import contextmanager

from tasks.errors import TooManyUploads

BUSY_RETRY_AFTER_S = 5


class UploadPlaces:
    """How many uploads run at once in this process, each with a few MB of memory."""

    def __init__(self, most: int) -> None:
        self._most, self._taken = most, 0

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
