"""The local stack as a context: all services ready inside, all gone after it.

    with Stack(Options(port=0)) as stack:
        print(stack.web_url)

The CLI, the demo and the acceptance tests import it.
"""

import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, Self

from compose.interruption import Interruption
from compose.output import Output
from compose.record import PROCESSES, write_stack
from compose.service import Service
from compose.services import Options, Plan, check_web_port, list_services, make_plan
from compose.supervisor import POLL_S, Supervisor
from tasks.settings import Settings, get_settings


class Stack:
    """Entering starts everything that the options do not leave out; leaving drains and stops it.

    Raises SettingsError when made; StackError (see `compose.errors`) when entered.
    """

    def __init__(
        self,
        options: Options,
        *,
        settings: Settings | None = None,
        output: Output | None = None,
        interruption: Interruption | None = None,
        on_ready: Callable[[str, float], None] = lambda _name, _seconds: None,
    ) -> None:
        """`settings`: this process' unless given. `on_ready` is told each service's name when it is
        ready, and how long that took."""
        self._settings = settings or get_settings()
        self._options = options
        self._on_ready = on_ready
        self.data_dir: Path = (options.data_dir or self._settings.data_dir).resolve()
        self._supervisor = Supervisor(
            self.data_dir, output or Output(sys.stdout), interruption or Interruption()
        )
        self._plan: Plan | None = None
        self.entries: dict[str, Mapping[str, Any]] = {}

    def __enter__(self) -> Self:
        if not (self.data_dir / PROCESSES).exists():  # else its own leftovers may hold the port
            check_web_port(self._options)
        self._supervisor.__enter__()
        try:
            self._start()
        except BaseException:
            self._supervisor.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._supervisor.__exit__(kind, error, trace)

    @property
    def plan(self) -> Plan:
        """The addresses. Raises RuntimeError before the stack is entered."""
        if self._plan is None:
            raise RuntimeError("the stack has not been started")
        return self._plan

    @property
    def web_url(self) -> str:
        return self.plan.web_url

    @property
    def redis_url(self) -> str:
        return self.plan.redis_url

    @property
    def qdrant_url(self) -> str:
        return self.plan.qdrant_url

    def start(self, service: Service) -> int:
        """One more service, ready when this returns; its pid. Raises ServiceDied, StackError or
        Interrupted; then it may still run."""
        return self._supervisor.start(service)

    def kill(self, service: Service) -> None:
        """End it at once."""
        self._supervisor.kill(service)

    def check(self) -> None:
        """Raises Interrupted when asked to stop, ServiceDied when a process ended by itself."""
        self._supervisor.check()

    def wait(self) -> None:
        """Until asked to stop. Raises ServiceDied when a process ends by itself."""
        self._supervisor.wait()

    def _start(self) -> None:
        self._plan = make_plan(self._options, self._settings, self.data_dir)
        if "worker" not in self._options.without:
            self.check_weights()
        # what runs elsewhere comes first: without it nothing has to be started here
        services = sorted(list_services(self._plan), key=lambda service: not _is_given(service))
        for service in services:
            began_s = time.monotonic()
            pid = self._supervisor.start(service)
            self._on_ready(service.name, time.monotonic() - began_s)
            if service.url or pid:
                self.entries[service.name] = describe(service, pid)
        write_stack(self.data_dir, self.entries)

    def check_weights(self) -> None:
        """In a thread, as it may be a long download. Raises ModelError, Interrupted."""
        from workers.preflight import check_weights

        checked: Future[None] = Future()

        def check() -> None:
            try:
                check_weights(self._settings)
                checked.set_result(None)
            except BaseException as error:
                checked.set_exception(error)

        Thread(target=check, name="weights", daemon=True).start()
        while not wait([checked], timeout=POLL_S).done:
            self._supervisor.check()
        checked.result()


def _is_given(service: Service) -> bool:
    return not service.command and bool(service.url)


def describe(service: Service, pid: int) -> dict[str, Any]:
    """A service's entry in stack.json: `url` when it has one, `pid` when it was started here."""
    url = {"url": service.url} if service.url else {}
    return {**url, **({"pid": pid} if pid else {}), **service.details}
