"""Repeating what may succeed later: how long to wait, and for how long. Only `compose` imports it.

A full queue is waited for without end, since it drains; a web that is down for a limited time.
"""

import random
import time
from collections.abc import Callable
from threading import Event
from typing import TypeVar

from compose.errors import Interrupted, WebBusy, WebDown

PATIENCE_S = 120.0
"""For a web that does not answer: longer than a restart takes."""
BACKOFF_S = 0.25
BACKOFF_MAX_S = 8.0
RETRY_AFTER_MAX_S = 5.0
"""While nothing drains the web says 30 s; whoever waits here is glad to know earlier."""
JITTER = 0.25

T = TypeVar("T")


class Patience:
    """Calls that are tried again until they succeed, are refused, or `stop` is set."""

    def __init__(
        self, stop: Event, say: Callable[[str], None], *, patience_s: float = PATIENCE_S
    ) -> None:
        self._stop = stop
        self._say = say
        self._patience_s = patience_s
        self._said = False

    def call(self, action: Callable[[], T]) -> T:
        """Raises WebDown when its time is over, Interrupted when told to stop, and whatever else
        the action raises."""
        refusals, failures, down_since = 0, 0, 0.0
        while True:
            try:
                answer = action()
            except WebBusy as busy:
                refusals, failures = refusals + 1, 0
                pause_s = busy_pause_s(busy.retry_after_s, refusals)
            except WebDown as error:
                failures += 1
                down_since = time.monotonic() if failures == 1 else down_since
                pause_s = down_pause_s(failures)
                if time.monotonic() + pause_s - down_since > self._patience_s:
                    raise
                self._say_once(f"{error.detail}; trying again")
            else:
                self._said = False
                return answer
            if self._stop.wait(pause_s):
                raise Interrupted("asked to stop")

    def _say_once(self, text: str) -> None:
        """Once for all threads, until something succeeds."""
        if not self._said:
            self._said = True
            self._say(text)


def busy_pause_s(retry_after_s: float, refusals: int) -> float:
    """What the web asked for and a little more, so that not all come at once; within a bound that
    grows with each refusal in a row, because a queue that has just begun to drain has no rate."""
    bound_s = min(RETRY_AFTER_MAX_S, 2.0 ** min(refusals - 1, 16))
    return min(retry_after_s, bound_s) * random.uniform(1, 1 + JITTER)


def down_pause_s(failures: int) -> float:
    """Twice as long each time, from the first failure on, with jitter."""
    ceiling_s = min(BACKOFF_S * 2 ** min(failures - 1, 16), BACKOFF_MAX_S)
    return random.uniform(ceiling_s / 2, ceiling_s)
