"""What `Job.wait(progress=True)` writes."""

import io
from dataclasses import replace

from tasks.progress import LINE_INTERVAL_S, Meter
from tests.unit.test_events import JOB

OPEN = replace(JOB, accepted=1000, done=630, failed=10, rate_per_s=120.4, eta_s=3.0)
DONE = replace(OPEN, state="done", done=990, eta_s=0.0)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_a_bar_in_one_line() -> None:
    stream = Terminal()
    meter = Meter(stream)
    meter.show(OPEN)
    assert stream.getvalue() == (
        f"\r{'#' * 19}{'-' * 11} 640 of 1,000 texts, 10 failed, 120 texts/s, 3 s left\x1b[K"
    )
    meter.show(DONE)
    assert stream.getvalue().endswith(
        f"\r{'#' * 30} 1,000 of 1,000 texts, 10 failed, 120 texts/s\x1b[K\n"
    )


def test_a_log_gets_a_line_now_and_then_and_the_last() -> None:
    stream, now_s = io.StringIO(), [0.0]
    meter = Meter(stream, lambda: now_s[0])
    for now_s[0] in (0.0, 1.0, LINE_INTERVAL_S, LINE_INTERVAL_S + 1):
        meter.show(OPEN)
    meter.show(DONE)
    assert stream.getvalue().splitlines() == [
        "640 of 1,000 texts, 10 failed, 120 texts/s, 3 s left",
        "1,000 of 1,000 texts, 10 failed, 120 texts/s",
    ]
