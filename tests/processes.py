"""Processes that tests start, and the one way of waiting for something to become true."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil


def wait_until(condition: Callable[[], object], what: str, *, timeout_s: float = 30.0) -> None:
    """Poll until the condition holds; the only place in the tests that sleeps."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s} s in vain until {what}")
        time.sleep(0.02)


def free_port() -> int:
    """A TCP port of the loopback interface that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Program:
    """A command with its own session and log; killed with all its children when the test ends."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.argv, self.log, self.cwd = list(argv), log, cwd
        self.env = {**os.environ, **(env or {})}
        self.popen = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as output:
            return subprocess.Popen(
                self.argv,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=self.env,
                cwd=self.cwd,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    def running(self) -> bool:
        return self.popen.poll() is None

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def send(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, to this process alone."""
        self.popen.kill()
        self.popen.wait(10)

    def restart(self) -> None:
        """Start the command again after it has ended."""
        assert not self.running()
        self.popen = self._start()

    def wait(self, timeout_s: float = 30.0) -> int:
        """The exit status, or an error with the log's end."""
        try:
            return self.popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.argv} still runs:\n{self.output()[-4000:]}") from None

    def wait_until(
        self, condition: Callable[[], object], what: str, *, timeout_s: float = 60.0
    ) -> None:
        """Wait for the condition, and fail at once when the process ends before it holds."""

        def held_or_dead() -> object:
            return condition() or not self.running()

        try:
            wait_until(held_or_dead, what, timeout_s=timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output()[-4000:]}") from None
        if not condition():
            status = self.popen.returncode
            raise AssertionError(f"ended with {status} before {what}:\n{self.output()[-4000:]}")

    def stop(self, timeout_s: float = 30.0) -> int:
        """SIGTERM, and SIGKILL to whatever is left after the timeout."""
        family = self._family()
        if self.running():
            self.popen.terminate()
            try:
                self.popen.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.popen.kill()
        for process in family:
            if process.is_running():
                process.kill()
        return self.popen.wait(10)

    def _family(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
