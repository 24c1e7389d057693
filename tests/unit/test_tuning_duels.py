"""Duels and whole sessions, with workers that only say how fast they are."""

import io
from collections.abc import Callable, Sequence
from itertools import count

import pytest
from rich.console import Console

from compose.errors import Interrupted, OutOfTime, ServiceDied
from compose.sample import Work
from compose.service import Service
from compose.tuning import duels as duels_module
from compose.tuning.door import DoorMeter, counts_for
from compose.tuning.duels import Budget, Duels
from compose.tuning.judging import Verdict
from compose.tuning.measurements import Door, Round, Usage
from compose.tuning.mill import Mill, Worker
from compose.tuning.points import Axis, Point, space_of
from compose.tuning.progress import Lines
from compose.tuning.session import Session

SPACE = space_of(2, 0, 512)
DEFAULT = SPACE.default
FOUR = Point(4)


class PaperMill(Mill):
    """Rates by point; `trouble` may raise at a round, told its number and point."""

    def __init__(
        self,
        rate: Callable[[Point], float],
        trouble: Callable[[int, Point], None] = lambda _number, _point: None,
    ) -> None:
        self.rate, self.trouble = rate, trouble
        self.running: dict[int, Point] = {}
        self.measured: list[Point] = []
        self.clears = 0
        self._pids = count(1)

    def start(self, point: Point, *, limit_s: float) -> Worker:
        pid = next(self._pids)
        self.running[pid] = point
        return Worker(point, f"w{pid}", pid, Service(name="worker", probe=lambda _pid: ""))

    def kill(self, worker: Worker) -> None:
        del self.running[worker.pid]

    def measure(
        self, worker: Worker, *, seconds: float, message_texts: int = 64, limit_s: float
    ) -> Round:
        assert worker.pid in self.running
        self.measured.append(worker.point)
        self.trouble(len(self.measured), worker.point)
        rate = self.rate(worker.point)
        usage = Usage({"worker": 1.9}, 0.0, None)
        return Round(int(rate * 1000), 1000.0, usage, Work(8, 64.0, {"encode": 0.9}, 0.0), 480, 0)

    def latencies_s(self, worker: Worker, count: int) -> list[float]:
        return [0.01] * count

    def memory_bytes(self, worker: Worker) -> int:
        return 300_000_000 * (worker.point.concurrency + 1)

    def clear(self) -> None:
        self.clears += 1

    def check(self) -> None:
        return None


class PaperDoor(DoorMeter):
    def __init__(self) -> None:
        pass

    def measure(
        self, counts: Sequence[int], *, seconds: float, may_go_on: Callable[[], bool]
    ) -> Door:
        return Door({count: [1000.0 * count] for count in counts})


@pytest.fixture(autouse=True)
def _much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duels_module, "available_bytes", lambda: 10**12)


def duels(mill: Mill, seconds: float = 600.0) -> Duels:
    found = Duels(mill, Budget(seconds), seconds=4.0, reserved_s=0.0, on_doing=lambda _text: None)
    found.begin(DEFAULT)
    return found


def session(mill: Mill, seconds: float = 600.0) -> Session:
    display = Lines(Console(file=io.StringIO()))
    return Session(SPACE, mill, Budget(seconds), display)


def faster_with_four(point: Point) -> float:
    return 150.0 if point.concurrency == 4 else 100.0


def test_the_winner_stays_and_the_loser_goes() -> None:
    mill = PaperMill(faster_with_four)
    found = duels(mill)
    assert found.compare(Axis.CONCURRENCY, FOUR, DEFAULT).verdict is Verdict.BETTER
    assert list(mill.running.values()) == [FOUR]
    assert found.compare(Axis.CONCURRENCY, Point(8), FOUR).verdict is Verdict.WORSE
    assert list(mill.running.values()) == [FOUR]
    found.end()
    assert not mill.running


def test_who_comes_first_changes() -> None:
    mill = PaperMill(faster_with_four)
    found = duels(mill)
    before = len(mill.measured)
    found.compare(Axis.CONCURRENCY, FOUR, DEFAULT)
    assert mill.measured[before:] == [DEFAULT, FOUR, FOUR, DEFAULT]


def test_a_challenger_that_dies_is_lost_and_the_search_goes_on() -> None:
    def die(_number: int, point: Point) -> None:
        if point == FOUR:
            raise ServiceDied("worker -c 4 (pid 7) ended by itself: SIGKILL\nlines")

    mill = PaperMill(faster_with_four, die)
    found = duels(mill)
    judgement = found.compare(Axis.CONCURRENCY, FOUR, DEFAULT)
    assert judgement.verdict is Verdict.WORSE
    assert judgement.note == "worker -c 4 (pid 7) ended by itself: SIGKILL"
    assert (mill.running, mill.clears) == ({}, 1)
    assert found.compare(Axis.CONCURRENCY, Point(1), DEFAULT).pairs
    assert list(mill.running.values()) == [DEFAULT]


def test_what_does_not_fit_into_memory_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    mill = PaperMill(faster_with_four)
    found = duels(mill)
    monkeypatch.setattr(duels_module, "available_bytes", lambda: 1_500_000_000)
    judgement = found.compare(Axis.CONCURRENCY, FOUR, DEFAULT)
    assert judgement.note == "it would take about 1,650 MB, and 1,500 MB are free"
    assert list(mill.running.values()) == [DEFAULT]


def test_a_challenger_that_is_too_slow_to_measure_is_lost() -> None:
    def hang(_number: int, point: Point) -> None:
        if point == FOUR:
            raise OutOfTime("with -c 4 no text was settled in time")

    judgement = duels(PaperMill(faster_with_four, hang)).compare(Axis.CONCURRENCY, FOUR, DEFAULT)
    assert (judgement.verdict, judgement.pairs) == (Verdict.WORSE, 0)


def test_pairs_that_were_measured_before_time_was_up_count() -> None:
    def end(number: int, _point: Point) -> None:
        if number == 5:
            raise OutOfTime("time is up")

    found = duels(PaperMill(lambda _point: 100.0, end))
    judgement = found.compare(Axis.CONCURRENCY, FOUR, DEFAULT)
    assert (judgement.verdict, judgement.pairs) == (Verdict.UNSURE, 1)


def test_no_comparison_begins_that_cannot_end() -> None:
    mill = PaperMill(faster_with_four)
    found = duels(mill, seconds=0.0)
    with pytest.raises(OutOfTime):
        found.compare(Axis.CONCURRENCY, FOUR, DEFAULT)
    assert found.measured[DEFAULT].rates


def test_a_session_finds_the_best_and_measures_the_door() -> None:
    mill = PaperMill(faster_with_four)
    tuned = session(mill)
    tuned.run(PaperDoor)
    found = tuned.found
    assert found is not None
    assert (found.best, found.complete) == (FOUR, True)
    assert found.against_default is not None
    assert found.against_default.ratio == pytest.approx(1.5)
    assert found.door is not None
    assert list(found.door.rates) == counts_for(2) == [1, 2, 4]
    assert not mill.running


def test_a_best_that_is_slower_than_the_default_in_the_end_is_not_recommended() -> None:
    """As when the machine was another one while the first comparisons were made."""
    mill = PaperMill(lambda _point: 100.0)

    def rate(point: Point) -> float:
        steps = (point.concurrency == 4) + (point.batch_tokens == 1024)
        started_again = list(mill.running.values()).count(DEFAULT) and steps == 2
        return 50.0 if started_again else 100.0 * 1.3**steps

    mill.rate = rate
    tuned = session(mill)
    tuned.run(PaperDoor)
    assert tuned.found is not None
    assert tuned.found.best == DEFAULT
    assert tuned.found.against_default is not None
    assert tuned.found.against_default.verdict is Verdict.WORSE


def test_an_interruption_leaves_what_was_found() -> None:
    def interrupt(number: int, _point: Point) -> None:
        if number == 9:
            raise Interrupted("asked to stop")

    mill = PaperMill(faster_with_four, interrupt)
    tuned = session(mill)
    with pytest.raises(Interrupted):
        tuned.run(PaperDoor)
    tuned.end()
    assert not mill.running
    assert tuned.found is not None
    assert (tuned.found.best, tuned.found.complete) == (FOUR, False)


def test_before_the_default_was_measured_nothing_is_found() -> None:
    def interrupt(_number: int, _point: Point) -> None:
        raise Interrupted("asked to stop")

    tuned = session(PaperMill(faster_with_four, interrupt))
    with pytest.raises(Interrupted):
        tuned.run(PaperDoor)
    assert tuned.found is None


def test_without_time_only_the_default_is_measured() -> None:
    mill = PaperMill(faster_with_four)
    tuned = session(mill, seconds=0.001)
    tuned.run(PaperDoor)
    assert tuned.found is not None
    assert (tuned.found.best, tuned.found.complete) == (DEFAULT, False)
    assert set(mill.measured) == {DEFAULT}


def test_what_is_left_is_never_more_than_the_budget() -> None:
    tuned = session(PaperMill(faster_with_four), seconds=100.0)
    spent_s, left_s = tuned.estimate()
    assert 0 < spent_s + left_s <= 100.5
