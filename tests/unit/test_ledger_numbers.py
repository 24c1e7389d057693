"""Rates and waiting times."""

import math

from hypothesis import given
from hypothesis import strategies as st

from tasks.drain import MAX_RETRY_AFTER_S, drain_rate, retry_after_s
from tasks.ledger import sweep_pages


def decayed(rate_per_s: float, seconds: int) -> float:
    """What the settle script's average holds after a steady rate: one step a second."""
    average = 0.0
    for _ in range(seconds):
        average = average * math.exp(-1 / 10) + rate_per_s / 10
    return average


@given(st.floats(0.1, 1e4), st.integers(5, 300))
def test_a_steady_drain_is_measured_right_from_its_first_seconds(rate: float, age: int) -> None:
    measured = drain_rate(decayed(rate, age), at=age, since=0.001, now=age)
    assert 0.9 * rate < measured < 1.2 * rate


def test_nothing_drains_when_nothing_did_for_a_minute() -> None:
    assert drain_rate(100.0, at=100.0, since=1.0, now=161.0) == 0.0
    assert drain_rate(0.0, at=0.0, since=0.0, now=1e9) == 0.0


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_retry_after_is_a_bounded_number_of_whole_seconds(excess: float, rate: float) -> None:
    assert 1 <= retry_after_s(excess, rate) <= MAX_RETRY_AFTER_S


def test_retry_after_follows_the_drain_rate() -> None:
    assert retry_after_s(100, 10) == 10
    assert retry_after_s(100, 0) == 30


@given(st.integers(0, 10_000))
def test_sweeping_visits_every_message_once_from_the_oldest(waiting: int) -> None:
    pages = list(sweep_pages(waiting))
    assert pages == sorted(pages, reverse=True)
    assert (pages[0] + 1) * 256 > waiting
    assert pages[-1] == 0
