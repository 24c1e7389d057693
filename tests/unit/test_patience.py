"""Repeating what may succeed later."""

from collections.abc import Callable, Sequence
from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compose.errors import Interrupted, WebBusy, WebDown, WebError, WebRefused
from compose.patience import (
    BACKOFF_MAX_S,
    JITTER,
    RETRY_AFTER_MAX_S,
    Patience,
    busy_pause_s,
    down_pause_s,
)

BUSY = WebBusy("full", retry_after_s=3)
DOWN = WebDown("away")
REFUSED = WebRefused("bad", status=422)


class Clock:
    """Time that passes only while somebody waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 0.0
        self.pauses: list[float] = []
        self.stop = Event()
        monkeypatch.setattr("time.monotonic", lambda: self.now_s)
        monkeypatch.setattr(self.stop, "wait", self._wait)

    def _wait(self, pause_s: float) -> bool:
        self.now_s += pause_s
        self.pauses.append(pause_s)
        return self.stop.is_set()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def failing(errors: Sequence[WebError]) -> Callable[[], str]:
    """An action that fails with these one after another, then succeeds."""
    left = list(errors)

    def action() -> str:
        if left:
            raise left.pop(0)
        return "answer"

    return action


def test_a_full_queue_is_waited_for_as_long_as_it_asks_and_without_end(clock: Clock) -> None:
    said: list[str] = []
    assert Patience(clock.stop, said.append).call(failing([BUSY] * 100)) == "answer"
    assert 1 + 2 + 98 * 3 <= clock.now_s <= 375
    assert not said


def test_a_web_that_is_down_is_tried_for_a_limited_time(clock: Clock) -> None:
    said: list[str] = []
    patience = Patience(clock.stop, said.append, patience_s=60)
    assert patience.call(failing([DOWN] * 5)) == "answer"
    with pytest.raises(WebDown):
        patience.call(failing([DOWN] * 1000))
    assert clock.now_s < 120
    assert said == ["away; trying again"] * 2


def test_the_time_begins_again_when_the_web_has_answered(clock: Clock) -> None:
    patience = Patience(clock.stop, lambda _: None, patience_s=10)
    assert patience.call(failing([DOWN, DOWN, DOWN, BUSY] * 10)) == "answer"


def test_a_refusal_is_not_repeated(clock: Clock) -> None:
    with pytest.raises(WebRefused):
        Patience(clock.stop, lambda _: None).call(failing([REFUSED]))
    assert not clock.pauses


def test_whoever_is_told_to_stop_stops(clock: Clock) -> None:
    clock.stop.set()
    with pytest.raises(Interrupted):
        Patience(clock.stop, lambda _: None).call(failing([BUSY]))


@given(st.floats(0, 1e6), st.integers(1, 10_000))
def test_a_busy_pause_is_what_was_asked_for_within_growing_bounds(
    asked_s: float, refusals: int
) -> None:
    bound_s = min(RETRY_AFTER_MAX_S, 2.0 ** min(refusals - 1, 20))
    least_s = min(asked_s, bound_s)
    assert least_s <= busy_pause_s(asked_s, refusals) <= least_s * (1 + JITTER)


@given(st.integers(1, 10_000))
def test_pauses_grow_to_a_bound(failures: int) -> None:
    assert 0 < down_pause_s(failures) <= min(0.25 * 2.0 ** min(failures - 1, 20), BACKOFF_MAX_S)
