"""Runs services in order in a data directory that it alone owns; only `compose` imports it.

Leaves no process behind, whatever way it ends: a clean end stops them in reverse order, a guardian
does it for a killed launcher, and the next start for a killed guardian.
"""

import secrets
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from compose.claim import claim
from compose.errors import Interrupted, ServiceDied, StackError
from compose.guardian import Guardian
from compose.interruption import Interruption
from compose.output import Output
from compose.process import Process, bearers, kill
from compose.record import Run, remove_run, remove_stack, write_run
from compose.recovery import recover
from compose.service import Service

POLL_S = 0.1


class Supervisor:
    """A context: entering claims the directory and clears up after an interrupted run, leaving
    stops what was started."""

    def __init__(self, data_dir: Path, output: Output, interruption: Interruption) -> None:
        self.data_dir = data_dir
        self._output = output
        self._interruption = interruption
        self._mark = secrets.token_hex(8)
        self._running: list[Process] = []
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        """Raises DataDirBusy, Interrupted or StackError."""
        with ExitStack() as undo:
            undo.enter_context(claim(self.data_dir, "launcher", on_wait=self._wait_for_guardian()))
            recover(self.data_dir, self._output, hurried=self._hurried())
            write_run(self.data_dir, Run(self._mark))
            undo.callback(remove_run, self.data_dir)
            undo.callback(Guardian(self.data_dir).dismiss)
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._undo:
            self._stop()

    def start(self, service: Service) -> int:
        """Start it, when it has a command, and wait until it is ready; its pid, 0 without command.

        Raises ServiceDied when it or another one ends meanwhile, Interrupted when asked to stop,
        StackError when it is not ready in time.
        """
        pid = self._launch(service) if service.command else 0
        deadline = time.monotonic() + service.start_timeout_s
        while missing := service.probe(pid):
            if time.monotonic() > deadline:
                advice = f"; {service.advice}" if service.advice else ""
                raise StackError(
                    f"{service.name} was not ready after {service.start_timeout_s:.0f} s: {missing}"
                    + advice
                )
            self.check()
            time.sleep(POLL_S)
        self.check()
        return pid

    def kill(self, service: Service) -> None:
        """End one that was started here, and all that it started, at once."""
        for process in [running for running in self._running if running.service is service]:
            process.kill()
            self._running.remove(process)
        self._record()

    def check(self) -> None:
        """Raises Interrupted when asked to stop, ServiceDied when a process ended by itself."""
        if self._interruption.requests:
            raise Interrupted("asked to stop before everything was ready")
        self._check_alive(show_last_lines=True)

    def wait(self) -> None:
        """Until asked to stop. Raises ServiceDied when a process ends by itself."""
        while not self._interruption.requests:
            self._check_alive()
            time.sleep(POLL_S)

    def _launch(self, service: Service) -> int:
        process = Process(service, self._output, self._mark)
        self._running.append(process)
        self._record()
        self._output.say(f"starting {service.name} (pid {process.pid})")
        process.release()
        return process.pid

    def _record(self) -> None:
        identities = tuple(running.identity for running in self._running)
        write_run(self.data_dir, Run(self._mark, identities))

    def _check_alive(self, *, show_last_lines: bool = False) -> None:
        for process in self._running:
            if ending := process.ending():
                last = process.last_lines() if show_last_lines else ""
                raise ServiceDied(
                    f"{process.service.name} (pid {process.pid}) ended by itself: {ending}"
                    + (f". It said last:\n{last}" if last else "")
                )

    def _stop(self) -> None:
        remove_stack(self.data_dir)
        hurried = self._hurried()
        try:
            for process in reversed(self._running):
                self._output.say(f"stopping {process.service.name}")
                self._output.say(f"{process.service.name} ended: {process.stop(hurried)}")
        finally:
            self._kill_left()

    def _kill_left(self) -> None:
        """Nothing after an orderly stop; everything when that was itself interrupted."""
        kill(bearers(self._mark))
        for process in self._running:
            process.kill()

    def _hurried(self) -> Callable[[], bool]:
        """Whether there was a request since now."""
        before = self._interruption.requests
        return lambda: self._interruption.requests > before

    def _wait_for_guardian(self) -> Callable[[], None]:
        said = False

        def on_wait() -> None:
            nonlocal said
            if self._interruption.requests:
                raise Interrupted("asked to stop")
            if not said:
                self._output.say("waiting: the processes of an interrupted run are being stopped")
            said = True

        return on_wait
