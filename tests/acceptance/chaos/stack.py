"""The whole product as processes that can be killed and started again where they were."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import httpx
import psutil
import redis

from tasks.settings import Settings
from tests.processes import Program, free_port, wait_until
from tests.qdrant_server import command
from tests.redis_server import RedisServer, local_redis
from tests.web_server import WebServer, local_web
from tests.worker import Worker, local_worker

WORKERS, CHILDREN = 2, 2
ENVIRONMENT = {
    "EMBED_MODEL": "fake",
    "EMBED_FAKE_DIMENSION": "32",
    "EMBED_FAKE_CALL_MS": "5",
    "EMBED_FAKE_TEXT_MS": "5",
    "EMBED_QUEUE_LIMIT": "600",
    "EMBED_VISIBILITY_TIMEOUT_S": "10",
    "EMBED_STORE_WAIT_S": "2",
}


class Store:
    """The local Qdrant server."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.program = Program(command(folder / "qdrant", port), log=folder / "qdrant.log")
        self.wait()

    def wait(self) -> None:
        """Until it answers."""
        self.program.wait_until(self._answers, "the store answers")

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/collections").status_code == 200
        except httpx.HTTPError:
            return False


@dataclass
class Stack:
    """Running processes; the block that made them stops them."""

    redis: RedisServer
    store: Store
    web: WebServer
    workers: list[Worker]
    settings: Settings
    orphans: list[psutil.Process] = field(default_factory=list)

    def kill_child(self, chance: Random) -> bool:
        """One pool child of one worker; False while there is none."""
        children = [child for worker in self.workers for child in _children(worker)]
        if not children:
            return False
        chance.choice(children).kill()
        return True

    def kill_worker(self, chance: Random) -> bool:
        """The main process of one worker, which is started again at once."""
        worker = chance.choice(self.workers)
        self.orphans += _children(worker)
        worker.program.kill()
        worker.program.restart()
        return True

    def restart_web(self) -> bool:
        self.web.program.kill()
        self.web.program.restart()
        self.web.wait()
        return True

    def restart_redis(self) -> bool:
        self.redis.kill()
        self.redis.restart()
        return True

    def restart_store(self) -> bool:
        self.store.program.kill()
        self.store.program.restart()
        self.store.wait()
        return True

    def revive(self) -> list[str]:
        """Start what has ended by itself, as a service manager would; what it said last."""
        programs = {worker.name: worker.program for worker in self.workers}
        programs |= {"web": self.web.program, "store": self.store.program}
        ended = {name: program for name, program in programs.items() if not program.running()}
        epitaphs = [f"{name}: {_last_words(program)}" for name, program in ended.items()]
        for program in ended.values():
            program.restart()
        return epitaphs

    def logs(self) -> dict[str, str]:
        """What the workers have written, by name."""
        return {worker.name: worker.program.output() for worker in self.workers}

    def wait_for_orphans(self) -> None:
        """Until the children of killed main processes have ended."""

        def ended() -> bool:
            self.orphans = [orphan for orphan in self.orphans if orphan.is_running()]
            return not self.orphans

        wait_until(ended, "the children of killed workers have ended")


@contextmanager
def whole_stack(
    folder: Path, *, redis_env: Mapping[str, str] | None = None, **changes: str
) -> Iterator[Stack]:
    """Redis, the store, a web and two workers of two children each, warm."""
    with ExitStack() as ends:
        broker = ends.enter_context(local_redis(folder, env=redis_env))
        store = Store(folder)
        ends.callback(store.program.stop)
        env = {**ENVIRONMENT, "EMBED_BROKER_URL": broker.url, "EMBED_QDRANT_URL": store.url}
        env |= changes
        web = ends.enter_context(local_web(folder, env))
        workers = [
            ends.enter_context(
                local_worker(folder, env, name=f"mill{number}", concurrency=CHILDREN)
            )
            for number in range(WORKERS)
        ]
        stack = Stack(broker, store, web, workers, _settings(env))
        ends.callback(_end, stack)
        yield stack


def _settings(env: dict[str, str]) -> Settings:
    values = {name.removeprefix("EMBED_").lower(): value for name, value in env.items()}
    return Settings.model_validate(values)


def _end(stack: Stack) -> None:
    """Orphans hold the group's pipes; a test that failed may leave some."""
    for orphan in stack.orphans:
        if orphan.is_running():
            orphan.kill()


def _last_words(program: Program) -> str:
    """What it raised, with its traceback; else its status and last line."""
    said = program.output()
    at = said.rfind("CRITICAL")
    return said[at : at + 4000] if at >= 0 else f"{program.popen.returncode}, {said[-200:]}"


def _children(worker: Worker) -> list[psutil.Process]:
    try:
        return worker.children()
    except psutil.NoSuchProcess:
        return []


def read_settled(client: redis.Redis) -> int | None:
    """Documents with an outcome so far; None while Redis is away."""
    try:
        counts = client.hmget("embedmill:totals", "done", "failed", "cancelled")
    except redis.RedisError:
        return None
    return sum(int(count or 0) for count in counts)
