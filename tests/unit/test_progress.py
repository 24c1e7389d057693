"""How far an ingestion is, in words."""

import io

import pytest
from rich.console import Console

from compose.following import Failure, Tally
from compose.ingest import summarize
from compose.progress import Bar, Lines, Reading, format_duration, make_display


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (125, "2 min 5 s"), (3725, "1 h 2 min")],
)
def test_durations(seconds: float, expected: str) -> None:
    assert format_duration(seconds) == expected


def test_a_reading_in_words() -> None:
    reading = Reading(accepted=1200, done=980, settled=1000, total=2000, seconds=10.0)
    assert str(reading) == (
        "accepted 1,200, done 980, failed or cancelled 20, 100 texts/s, 10 s left"
    )


def test_nothing_is_foretold_from_nothing() -> None:
    assert Reading(accepted=5, done=0, settled=0, total=5, seconds=1.0).eta_s is None
    assert Reading(accepted=5, done=5, settled=5, total=None, seconds=1.0).eta_s is None


def test_a_log_gets_lines_and_a_terminal_a_bar() -> None:
    assert isinstance(make_display(Console(file=io.StringIO())), Lines)
    assert isinstance(make_display(Console(file=io.StringIO(), force_terminal=True)), Bar)


@pytest.mark.parametrize("terminal", [False, True])
def test_what_is_said_stays_as_it_is(terminal: bool) -> None:
    stream = io.StringIO()
    with make_display(Console(file=stream, force_terminal=terminal, width=40)) as display:
        display.show(Reading(accepted=5, done=1, settled=1, total=None, seconds=1.0))
        display.say("a [bold] claim of more than forty characters in one line")
    assert "a [bold] claim of more than forty characters in one line\n" in stream.getvalue()


def test_lines_come_now_and_then() -> None:
    stream = io.StringIO()
    lines = Lines(Console(file=stream), interval_s=3600)
    lines.show(Reading(accepted=5, done=1, settled=1, total=None, seconds=1.0))
    assert not stream.getvalue()


def test_the_summary_lists_the_first_failures() -> None:
    tally = Tally(jobs=1, accepted=30, done=9, failed=20, cancelled=1, points=9)
    tally.failures = [Failure("a.txt:1", "text_too_long", "too long")] * 10
    lines = summarize(tally, 2.0).splitlines()
    assert lines[0] == (
        "accepted 30, done 9, failed 20, cancelled 1, points written 9: 15 texts/s, 2.0 s"
    )
    assert lines[1] == "  a.txt:1: too long (text_too_long)"
    assert lines[-1] == "  and 10 more"


def test_the_summary_tells_new_texts_from_unchanged_ones() -> None:
    tally = Tally(accepted=9, done=9, unchanged=3, chunked=2, truncated=1, points=8)
    assert summarize(tally, 3.0, before=5) == (
        "sent before 5, accepted 9, done 9, new 6, unchanged 3, failed 0, chunked 2, truncated 1, "
        "points written 8: 3 texts/s, 3.0 s"
    )
