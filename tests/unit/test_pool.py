"""The pool notices the end of a child at once, though the kernel tells of it a moment too early."""

from collections.abc import Callable
from typing import Any

import pytest
from billiard.pool import CLOSE, RUN

from workers.pool import PatientAsynPool


class Hub:
    """Calls that were asked for later."""

    def __init__(self) -> None:
        self.later: list[tuple[Callable[..., None], tuple[Any, ...]]] = []

    def call_later(self, _: float, call: Callable[..., None], *arguments: Any) -> None:
        self.later.append((call, arguments))

    def pass_time(self) -> None:
        call, arguments = self.later.pop()
        call(*arguments)


class DyingPool(PatientAsynPool):
    """Without processes: its child can be waited for after some looks."""

    def __init__(self, looks: int) -> None:
        self.child = object()
        self._pool, self._state, self._looks_left = [self.child], RUN, looks

    def maintain_pool(self) -> None:
        self._looks_left -= 1
        if self._looks_left == 0:
            self._pool = []

    def __del__(self) -> None:
        """There is nothing to end."""


@pytest.mark.parametrize("looks", [1, 2, 5])
def test_it_looks_until_the_child_has_ended(looks: int) -> None:
    pool, hub = DyingPool(looks), Hub()
    pool._event_process_exit(hub, pool.child)
    for _ in range(looks - 1):
        assert pool._pool
        hub.pass_time()
    assert not pool._pool
    assert not hub.later


def test_a_pool_that_closes_looks_no_more() -> None:
    pool, hub = DyingPool(2), Hub()
    pool._state = CLOSE
    pool._event_process_exit(hub, pool.child)
    assert not hub.later
