"""What `embedmill watch` shows, in each of its forms."""

import io
import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from rich.console import Console

from compose.interruption import Interruption
from compose.sample import Sample, Sampler, Work, compare, format_left, to_json, to_line
from compose.watch import Lines, Panel, choose_screen, ticks
from tasks.errors import BrokerDown
from tasks.presence import GpuUse, WorkerPresence
from tasks.snapshot import COUNTERS, EVENTS, QueueSnapshot
from tasks.statistics import BOUNDS, ChildStatistics, Histogram, Statistics
from tasks.statistics import COUNTERS as PASS_COUNTERS

AT = 1_700_000_000.0
AWAY = BrokerDown("Redis at redis://h/0 does not answer")
QUEUE = QueueSnapshot(
    waiting=12,
    reserved=4,
    outstanding=800,
    outstanding_bytes=80_000,
    limit=10_000,
    kept_limit=3000,
    limit_bytes=10**6,
    oldest_age_s=3.0,
    idle_s=0.1,
    drain_rate_per_s=100.0,
    workers=[WorkerPresence("w[red]@host", 1, 3, 2, None)],
    totals={name: n for n, name in enumerate((*COUNTERS, *EVENTS))},
)
CHILDREN = [ChildStatistics("w[red]@host", pid, 64, 50.0, 0.97, 3.0, 310_000_000) for pid in (7, 8)]


def statistics(texts: int, seconds: float, children: Sequence[ChildStatistics] = ()) -> Statistics:
    passes = texts // 64
    counts = {name: [passes, *[0] * len(bounds)] for name, bounds in BOUNDS.items()}
    return Statistics(
        {name: Histogram(BOUNDS[name], counts[name], seconds) for name in BOUNDS},
        dict.fromkeys(PASS_COUNTERS, texts),
        children,
        2,
        100,
    )


def sample(queue: QueueSnapshot = QUEUE) -> Sample:
    work = Work(13, 64.0, dict.fromkeys(BOUNDS, 0.25), 0.04)
    return Sample(AT, queue, statistics(640, 1.0, CHILDREN), work)


def drawn(panel_input: "Sample | BrokerDown", *before: Sample) -> str:
    stream = io.StringIO()
    with Panel(Console(file=stream, force_terminal=True, width=110, no_color=True)) as panel:
        for seen in (*before, panel_input):
            stream.seek(0)
            stream.truncate()
            panel.show(seen, AT)
    return stream.getvalue()


def test_a_line_has_the_queue_and_every_process() -> None:
    line = to_line(sample(), AT)
    assert "waiting 12, reserved 4, outstanding 800 of 3,000, oldest 3 s, 100 texts/s" in line
    assert "8 s left, 429s 8, dead letters 2" in line
    assert "pid 7: batch 64, 50 texts/s, CPU 97 %, 310 MB; pid 8:" in line
    assert "\n" not in line


def test_json_has_the_same_numbers() -> None:
    row = json.loads(to_json(sample(), AT))
    assert (row["waiting"], row["outstanding"], row["limit"], row["eta_s"]) == (12, 800, 3000, 8.0)
    assert (row["refused_requests"], row["dead_letters"], row["redelivered"]) == (8, 2, 9)
    assert [process["pid"] for process in row["processes"]] == [7, 8]
    assert row["workers"][0]["warm"] == 2


def test_a_terminal_shows_them_in_place() -> None:
    shown = drawn(sample())
    for words in ("outstanding", "of 3,000 texts", "w[red]@host", "310 MB", "1 loading", "25 %"):
        assert words in shown


def test_without_redis_it_says_so_and_shows_what_it_saw_last() -> None:
    shown = drawn(AWAY, sample())
    assert "does not answer; trying again" in shown
    assert "310 MB" in shown
    assert "trying again" in to_line(AWAY, AT)
    assert json.loads(to_json(AWAY, AT))["error"]["code"] == "broker_down"
    assert "does not answer" in drawn(AWAY)  # nothing was seen yet


@pytest.mark.parametrize(
    ("outstanding", "rate", "left"),
    [(0, 5.0, "nothing left"), (10, 0.0, "nothing drains"), (10, 2.0, "5 s left")],
)
def test_how_long_it_takes_is_said_where_it_can_be_told(
    outstanding: int, rate: float, left: str
) -> None:
    queue = replace(QUEUE, outstanding=outstanding, drain_rate_per_s=rate)
    assert format_left(sample(queue)) == left


def test_gpus_are_shown_with_the_worker_that_uses_them() -> None:
    gpus = (GpuUse("0", 0.93, 12_100_000_000, 80_000_000_000), GpuUse("1", None, 5 * 10**9, 10**10))
    seen = sample(replace(QUEUE, workers=[WorkerPresence("w", 1, 2, 2, None, 0.0, gpus)]))
    assert "GPU 0: 93 %, 12.1 of 80.0 GB; GPU 1: 5.0 of 10.0 GB" in to_line(seen, AT)
    assert "GPU 0  93 %, 12.1 of 80.0 GB" in drawn(seen)
    assert json.loads(to_json(seen, AT))["workers"][0]["gpus"][1]["utilization"] is None


def test_no_process_is_said_too() -> None:
    idle = replace(sample(replace(QUEUE, workers=[])), statistics=statistics(0, 0.0))
    assert "no process works" in to_line(idle, AT)
    assert "no worker consumes the queue" in drawn(idle)


def test_work_is_what_happened_between_two_looks() -> None:
    work = compare(statistics(640, 1.0), statistics(1280, 3.0))
    assert (work.passes, work.texts_per_pass, work.shares["encode"]) == (10, 64.0, 1.0)
    assert compare(statistics(640, 1.0), statistics(640, 1.0)).passes == 0
    assert Sampler()._seen.maxlen == 11


def test_a_pipe_gets_lines_and_a_terminal_a_view() -> None:
    pipe, terminal = Console(file=io.StringIO()), Console(file=io.StringIO(), force_terminal=True)
    assert isinstance(choose_screen(pipe, plain=False, as_json=False), Lines)
    assert isinstance(choose_screen(terminal, plain=False, as_json=False), Panel)
    assert isinstance(choose_screen(terminal, plain=True, as_json=False), Lines)
    assert isinstance(choose_screen(terminal, plain=False, as_json=True), Lines)


def test_it_ends_when_asked_to_or_after_so_many() -> None:
    assert list(ticks(Interruption(), 1)) == [0]
    interruption = Interruption()
    for number in ticks(interruption, None):
        assert number == 0
        interruption.request()
