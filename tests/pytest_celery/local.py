"""What pytest-celery's nodes wrap where there is no Docker: processes of this machine.

As much of a container as its nodes use: state, log, kill, restart.
"""

import signal
from typing import Any

from tests.processes import Program
from tests.redis_server import RedisServer
from tests.worker import Worker


class LocalContainer:
    """A process in a container's place."""

    def __init__(self, program: Program, name: str) -> None:
        self._program, self.name = program, name

    @property
    def id(self) -> str:
        return f"{self.name}-{self._program.pid}"

    @property
    def status(self) -> str:
        return "running" if self._program.running() else "exited"

    @property
    def celeryconfig(self) -> dict[str, Any]:
        raise NotImplementedError

    def ready(self) -> bool:
        """Wait until it is."""
        raise NotImplementedError

    def logs(self) -> str:
        return self._program.output()

    def kill(self, signal: str | int = "SIGKILL") -> None:  # as Docker calls it
        """Send it that, and wait until it has ended."""
        self._program.send(_number(signal))
        self._program.wait()

    def restart(self, timeout: int) -> None:
        """Stop it if it runs, and start it again."""
        if self._program.running():
            self._program.stop(timeout)
        self._program.restart()
        self.ready()

    def reload(self) -> None:
        """What a process is like is asked when it matters."""

    def teardown(self) -> None:
        """Whoever has started it stops it."""


class LocalRedis(LocalContainer):
    """The broker, and the store of results."""

    def __init__(self, server: RedisServer) -> None:
        super().__init__(server.program, "redis")
        self._server = server

    @property
    def celeryconfig(self) -> dict[str, Any]:
        return {"url": self._server.url, "host_url": self._server.url, "port": self._server.port}

    def ready(self) -> bool:
        self._server.wait()
        return True


class LocalWorker(LocalContainer):
    """`celery -A workers worker`."""

    def __init__(self, worker: Worker) -> None:
        super().__init__(worker.program, worker.name)
        self._worker = worker

    def ready(self) -> bool:
        self._worker.wait()
        return True


def _number(given: str | int) -> signal.Signals:
    return signal.Signals[given] if isinstance(given, str) else signal.Signals(given)
