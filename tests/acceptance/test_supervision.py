"""The supervisor with stand-ins for services: order, deaths, signals, and never an orphan."""

import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from compose.errors import DataDirBusy, Interrupted, ServiceDied, StackError
from compose.interruption import Interruption
from compose.output import Output
from compose.process import MARK, Identity, Process, bearers, is_running
from compose.record import PROCESSES, Run, read_run, write_run
from compose.service import Service
from compose.supervisor import Supervisor
from tests.launcher import standin
from tests.processes import Program, wait_until
from tests.standin import Behaviour


class Bench:
    """A data directory, a folder for the stand-ins, and the launchers that use both."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data_dir = root / "data"
        self.folder = root / "folder"
        self.folder.mkdir()
        self.launchers: list[Program] = []

    def launcher(self, *pairs: str) -> Program:
        program = Program(
            [sys.executable, "-m", "tests.launcher", str(self.data_dir), str(self.folder), *pairs],
            log=self.root / f"launcher-{len(self.launchers)}.log",
        )
        self.launchers.append(program)
        return program

    def ready_launcher(self, *pairs: str) -> Program:
        for flag in self.folder.glob("*.ready"):
            flag.unlink()
        program = self.launcher(*pairs)
        program.wait_until(lambda: "all ready" in program.output(), "all are ready")
        return program

    def standin(self, name: str, behaviour: Behaviour, **options: float) -> Service:
        return standin(self.folder, name, behaviour, **options)

    def events(self) -> list[str]:
        path = self.folder / "events"
        return path.read_text().splitlines() if path.exists() else []

    def recorded(self) -> tuple[Identity, ...]:
        run = read_run(self.data_dir)
        assert run is not None
        return run.processes

    def alive(self) -> list[psutil.Process]:
        """Everything that has this bench's path on its command line or is a stand-in's child."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            if not is_running(process):
                return False
            mine = str(self.root) in " ".join(process.cmdline())
            return mine or process.pid in self.orphans()
        except psutil.Error:
            return False

    def orphans(self) -> set[int]:
        return {int(path.read_text() or 0) for path in self.folder.glob("*.orphan")}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    for launcher in bench.launchers:
        launcher.stop()
    wait_until(lambda: not bench.alive(), "no process is left", timeout_s=20)


@pytest.fixture
def log() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def supervisor(bench: Bench, log: io.StringIO) -> Supervisor:
    return Supervisor(bench.data_dir, Output(log), Interruption())


def guardian_of(launcher: Program) -> psutil.Process:
    children = psutil.Process(launcher.pid).children()
    return next(child for child in children if "compose.guardian" in child.cmdline())


def test_stops_in_reverse_order_and_leaves_no_record(bench: Bench, supervisor: Supervisor) -> None:
    with supervisor:
        for name in ("first", "second", "third"):
            supervisor.start(bench.standin(name, Behaviour.ORDINARY))
        assert [identity.name for identity in bench.recorded()] == ["first", "second", "third"]
    assert bench.events() == ["TERM third", "TERM second", "TERM first"]
    assert not (bench.data_dir / PROCESSES).exists()
    assert not bench.alive()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_launcher_cleanly(bench: Bench, number: signal.Signals) -> None:
    launcher = bench.ready_launcher("first=ordinary", "second=ordinary")
    launcher.send(number)
    assert launcher.wait() == 0
    assert bench.events() == ["TERM second", "TERM first"]
    assert not bench.alive()


def test_a_second_signal_hurries(bench: Bench) -> None:
    launcher = bench.ready_launcher("first=ordinary", "second=stubborn")
    launcher.send(signal.SIGTERM)
    launcher.wait_until(lambda: "TERM second" in bench.events(), "the drain has begun")
    launcher.send(signal.SIGTERM)
    assert launcher.wait(timeout_s=25) == 0
    assert bench.events() == ["TERM second", "TERM first"]
    assert "second ended: SIGKILL" in launcher.output()


def test_kills_what_ignores_sigterm_after_its_deadline(
    bench: Bench, supervisor: Supervisor, log: io.StringIO
) -> None:
    with supervisor:
        supervisor.start(bench.standin("mule", Behaviour.STUBBORN, stop_timeout_s=0.2))
    assert bench.events() == ["TERM mule"]
    assert "mule ended: SIGKILL" in log.getvalue()


@pytest.mark.parametrize("behaviour", [Behaviour.PARENT, Behaviour.RUNAWAY])
def test_kills_what_a_service_leaves_behind(
    bench: Bench, supervisor: Supervisor, behaviour: Behaviour
) -> None:
    with supervisor:
        supervisor.start(bench.standin("parent", behaviour))
        assert bench.orphans() <= {process.pid for process in bench.alive()}
    assert not bench.alive()


def test_a_service_that_dies_while_starting_is_shown_with_its_last_lines(
    bench: Bench, supervisor: Supervisor
) -> None:
    dies = pytest.raises(ServiceDied, match=r"(?s)broken \(pid .*exit status 1.*is wrong")
    with dies, supervisor:
        supervisor.start(bench.standin("first", Behaviour.ORDINARY))
        supervisor.start(bench.standin("broken", Behaviour.BROKEN))
    assert bench.events() == ["TERM first"]


def test_a_service_that_cannot_be_found_dies_while_starting(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    missing = Service(name="ghost", command=(str(tmp_path / "ghost"),), probe=lambda _pid: "absent")
    with pytest.raises(ServiceDied, match=r"ghost .* exit status 127"), supervisor:
        supervisor.start(missing)


def test_a_service_that_dies_later_ends_all_and_is_named(bench: Bench) -> None:
    launcher = bench.ready_launcher("first=ordinary", "short=parent", "last=ordinary")
    (bench.folder / "short.end").touch()
    assert launcher.wait() != 0
    assert "short (pid" in launcher.output()
    assert "ended by itself: exit status 3" in launcher.output()
    assert bench.events() == ["TERM last", "TERM first"]
    assert not bench.alive()


def test_a_killed_service_is_named_with_its_signal(bench: Bench, supervisor: Supervisor) -> None:
    with supervisor:
        os.kill(supervisor.start(bench.standin("first", Behaviour.ORDINARY)), signal.SIGKILL)
        with pytest.raises(ServiceDied, match="ended by itself: SIGKILL"):
            supervisor.wait()


def test_a_service_that_is_never_ready_is_given_up(bench: Bench, supervisor: Supervisor) -> None:
    never = Service(name="never", probe=lambda _pid: "it sleeps", start_timeout_s=0.1)
    with pytest.raises(StackError, match="never was not ready after 0 s: it sleeps"), supervisor:
        supervisor.start(never)


def test_is_interrupted_while_it_starts(bench: Bench, log: io.StringIO) -> None:
    interruption = Interruption()

    def probe(_pid: int) -> str:
        interruption.request()
        return "not yet"

    with Supervisor(bench.data_dir, Output(log), interruption) as supervisor:
        supervisor.start(bench.standin("first", Behaviour.ORDINARY))
        with pytest.raises(Interrupted):
            supervisor.start(Service(name="never", probe=probe))
    assert bench.events() == ["TERM first"]


def test_a_stop_that_is_itself_interrupted_kills_the_rest(
    bench: Bench, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_process: Process, _hurried: Callable[[], bool]) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(Process, "stop", interrupt)
    with pytest.raises(KeyboardInterrupt), supervisor:
        supervisor.start(bench.standin("first", Behaviour.STUBBORN))
    assert not bench.alive()


def test_a_second_launcher_on_the_same_data_is_refused(bench: Bench, log: io.StringIO) -> None:
    bench.ready_launcher("first=ordinary")
    second = Supervisor(bench.data_dir, Output(log), Interruption())
    with pytest.raises(DataDirBusy, match="another stack runs on"), second:
        pytest.fail("entered a directory that is taken")
    assert bench.recorded()[0].find() is not None
    assert bench.events() == []


def test_the_guardian_stops_everything_when_the_launcher_is_killed(bench: Bench) -> None:
    launcher = bench.ready_launcher("first=ordinary", "second=parent")
    launcher.kill()
    wait_until(lambda: not bench.alive(), "the guardian has stopped everything")
    assert bench.events() == ["TERM second", "TERM first"]

    following = bench.ready_launcher("first=ordinary")
    assert "found an interrupted run" in following.output()
    assert "none of its processes is left" in following.output()


def test_the_next_start_waits_for_the_guardian(bench: Bench) -> None:
    launcher = bench.ready_launcher("first=ordinary", "mule=stubborn")
    (mule,) = [process for process in bench.alive() if "mule" in process.cmdline()]
    launcher.kill()
    wait_until(lambda: "TERM mule" in bench.events(), "the guardian is at work")
    following = bench.launcher("first=ordinary")
    following.wait_until(lambda: "waiting: " in following.output(), "it waits")
    mule.kill()
    following.wait_until(lambda: "all ready" in following.output(), "it has started")
    assert bench.events() == ["TERM mule", "TERM first"]


def test_the_next_start_recovers_when_the_guardian_was_killed_too(bench: Bench) -> None:
    launcher = bench.ready_launcher("first=ordinary", "second=parent")
    guardian_of(launcher).kill()
    launcher.kill()
    left = [identity.find() for identity in bench.recorded()]
    assert all(left)
    assert bench.events() == []

    following = bench.ready_launcher("first=ordinary")
    assert "found 2 processes of an interrupted run" in following.output()
    assert bench.events() == ["TERM second", "TERM first"]
    assert not any(process and is_running(process) for process in left)
    assert len(bench.recorded()) == 1


def test_recovery_finds_the_children_of_a_dead_service(bench: Bench) -> None:
    launcher = bench.ready_launcher("second=runaway")
    guardian_of(launcher).kill()
    launcher.kill()
    os.kill(bench.recorded()[0].pid, signal.SIGKILL)
    assert bench.alive(), "the child of the dead one runs on"

    orphans = bench.orphans()
    following = bench.ready_launcher("first=ordinary")
    assert not orphans & {process.pid for process in bench.alive()}
    assert following.stop() == 0


def test_recovery_spares_a_stranger_with_a_recorded_pid(
    bench: Bench, supervisor: Supervisor
) -> None:
    stranger = bench.launcher("first=ordinary")
    stranger.wait_until(bench.data_dir.exists, "it runs")
    created = psutil.Process(stranger.pid).create_time()
    elsewhere = bench.root / "elsewhere"
    elsewhere.mkdir()
    recorded = Identity("first", stranger.pid, created - 60, stop_timeout_s=5)
    write_run(elsewhere, Run("a-mark-of-nobody", (recorded,)))
    with Supervisor(elsewhere, Output(io.StringIO()), Interruption()):
        assert stranger.running()


def test_a_child_does_nothing_unless_it_is_on_record(
    bench: Bench, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = bench.folder / "trace"

    def refuse(_data_dir: Path, run: Run) -> None:
        if run.processes:
            with suppress(AssertionError):
                wait_until(trace.exists, "the child is too early", timeout_s=0.5)
            raise StackError("the disk is full")

    monkeypatch.setattr("compose.supervisor.write_run", refuse)
    hasty = Service(name="hasty", command=("touch", str(trace)), probe=lambda _pid: "")
    with pytest.raises(StackError, match="the disk is full"), supervisor:
        supervisor.start(hasty)
    assert not trace.exists()


def test_all_that_a_run_starts_bears_its_mark(bench: Bench) -> None:
    bench.ready_launcher("second=runaway")
    run = read_run(bench.data_dir)
    assert run is not None
    assert len(bearers(run.mark)) == 2
    assert all(process.environ()[MARK] == run.mark for process in bearers(run.mark))


def test_output_is_whole_lines_under_the_services_names(
    supervisor: Supervisor, log: io.StringIO
) -> None:
    code = "while True: print('x' * 3000)"

    def loud(name: str) -> Service:
        def probe(_pid: int) -> str:
            return "" if log.getvalue().count(f"{name:<9} | x") > 300 else "it has just begun"

        return Service(name=name, command=(sys.executable, "-c", code), probe=probe)

    with supervisor:
        supervisor.start(loud("loud"))
        supervisor.start(loud("louder"))
    said = [line.partition(" | ") for line in log.getvalue().splitlines()]
    assert {name.strip() for name, _, _ in said} == {"loud", "louder", "embedmill"}
    whole = [text for name, _, text in said if name.startswith("loud")]
    assert sum(text != "x" * 3000 for text in whole) <= 2, "only the last ones are cut, by SIGTERM"
