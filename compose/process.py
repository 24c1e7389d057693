"""One running child of a local stack, and how it and all that it started end.

Only `compose` imports it. Every child leads a session of its own, so that a Ctrl-C in the terminal
reaches only the launcher, and so that what a child leaves behind can be found.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from compose.output import Output, Reader
from compose.service import Service

MARK = "EMBEDMILL_RUN"
"""The environment variable by which a run's processes, and theirs, are known."""

ROOT = Path(__file__).resolve().parents[1]
"""Where children start: a `tasks.py` in the user's folder must not stand in for our package."""

GATE = 'read -r _ && exec "$@" < /dev/null'
"""A child waits for a line before it becomes its program. The launcher sends it once the pid is
on record; without a launcher the read ends and so does the child."""

POLL_S = 0.05
KILL_TIMEOUT_S = 10.0
HURRIED_TIMEOUT_S = 2.0
READ_OUT_S = 1.0
"""For a child's last lines. Its output stays open while something that it left behind holds it."""
SAME_START_S = 1.0
"""psutil counts start times from the boot time, which moves a little when the clock is set."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A process that cannot be confused with a later one of the same pid."""

    name: str
    pid: int
    created: float
    stop_timeout_s: float

    def find(self) -> psutil.Process | None:
        """The process, when it still runs and is no stranger."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.created) < SAME_START_S
        except psutil.Error:
            return None
        return process if same and is_running(process) else None


class Process:
    """A started service. It does nothing before `release`."""

    def __init__(self, service: Service, output: Output, mark: str) -> None:
        """Raises OSError when there is no shell to start it with."""
        self.service = service
        self._popen = subprocess.Popen(
            ["/bin/sh", "-c", GATE, "sh", *service.command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**service.environment, MARK: mark},
            cwd=ROOT,
            start_new_session=True,
        )
        self.pid = self._popen.pid
        self._handle = psutil.Process(self.pid)
        assert self._popen.stdout is not None
        self._reader = Reader(service.name, self._popen.stdout, output)
        self._reader.start()

    @property
    def identity(self) -> Identity:
        created = self._handle.create_time()
        return Identity(self.service.name, self.pid, created, self.service.stop_timeout_s)

    def release(self) -> None:
        """Let the child become its program."""
        assert self._popen.stdin is not None
        with suppress(BrokenPipeError), self._popen.stdin as gate:
            gate.write(b"\n")

    def ending(self) -> str:
        """How it ended, or nothing while it runs. What it leaves behind is killed at once: later
        its pid could name another session."""
        ended_before = self._popen.returncode is not None
        status = self._popen.poll()
        if status is None:
            return ""
        if not ended_before:
            kill(session_of(self.pid))
        return f"exit status {status}" if status >= 0 else signal.Signals(-status).name

    def last_lines(self) -> str:
        """What it printed last, once it has ended."""
        self._reader.join(timeout=READ_OUT_S)
        return self._reader.last_lines()

    def stop(self, hurried: Callable[[], bool]) -> str:
        """End it and all that it started; says how it ended."""
        if self._popen.poll() is None:
            end(self._handle, timeout_s=self.service.stop_timeout_s, hurried=hurried)
        return self._collect()

    def kill(self) -> str:
        """End it and its session at once; says how it ended."""
        if self._popen.poll() is None:
            kill(session_of(self.pid))
        return self._collect()

    def _collect(self) -> str:
        assert self._popen.stdin is not None
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(timeout=KILL_TIMEOUT_S)
        with suppress(BrokenPipeError):
            self._popen.stdin.close()
        self._reader.join(timeout=READ_OUT_S)
        return self.ending()


def is_running(process: psutil.Process) -> bool:
    """False for zombies: in a container without an init nobody may ever collect them."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def end(process: psutil.Process, *, timeout_s: float, hurried: Callable[[], bool]) -> None:
    """SIGTERM to the leader alone (a worker's pool children must finish what they hold), and
    SIGKILL to whatever is left of its session when it has ended or its time is over."""
    family = session_of(process.pid)
    with suppress(psutil.NoSuchProcess):
        process.terminate()
    began = time.monotonic()
    while is_running(process):
        limit_s = min(timeout_s, HURRIED_TIMEOUT_S) if hurried() else timeout_s
        if time.monotonic() - began >= limit_s:
            break
        time.sleep(POLL_S)
    kill({*family, *session_of(process.pid)})


def kill(processes: set[psutil.Process]) -> None:
    """SIGKILL, and wait until they are gone."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    deadline = time.monotonic() + KILL_TIMEOUT_S
    while any(map(is_running, processes)) and time.monotonic() < deadline:
        time.sleep(POLL_S)


def session_of(leader: int) -> set[psutil.Process]:
    """Whoever is in the session that `leader` began. No pid is given out again while a session
    bears it, so ask while the leader runs or right after its end."""
    return {process for process in psutil.process_iter() if _session(process.pid) == leader}


def bearers(mark: str) -> set[psutil.Process]:
    """Whoever has inherited a run's mark."""
    return {process for process in psutil.process_iter() if _bears(process, mark)}


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return -1


def _bears(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get(MARK) == mark and is_running(process)
    except (psutil.Error, OSError):
        return False
