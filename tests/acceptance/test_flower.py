"""Flower sees the queue and every task's life, and no texts."""

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tasks import embed
from tasks.client import submit
from tests.processes import Program, free_port, wait_until
from tests.redis_server import RedisServer
from tests.worker import Worker

TASKS = 2000
LONG = "word " * 300
TIMEOUT_S = 120


class Flower:
    """A Flower process with a password, asked over its API."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        port = self.url.rpartition(":")[2]
        argv = [sys.executable, "-m", "celery", "-A", "tasks", "flower", f"--port={port}"]
        env = env | {"FLOWER_BASIC_AUTH": "user:secret"}
        self.program = Program([*argv, "--address=127.0.0.1"], log=folder / "flower.log", env=env)
        self.program.wait_until(self._answers, "Flower answers")

    def get(self, path: str, **parameters: Any) -> Any:
        answer = httpx.get(
            f"{self.url}/api/{path}", params=parameters, auth=("user", "secret"), timeout=60
        )
        return answer.raise_for_status().json()

    def tasks(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = self.get("tasks", taskname="tasks.embed", limit=10_000)
        return found

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/healthcheck").status_code == 200
        except httpx.HTTPError:
            return False


@pytest.fixture
def flower(
    worker: Worker, broker: RedisServer, stack_env: dict[str, str], tmp_path: Path
) -> Iterator[Flower]:
    flower = Flower(tmp_path, stack_env)
    try:
        wait_until(
            lambda: worker.name in flower.get("workers", refresh=1), "Flower sees the worker"
        )
        yield flower
    finally:
        flower.program.stop()


@pytest.mark.timeout(240)
def test_flower_sees_every_task_to_its_end(flower: Flower) -> None:
    jobs = [submit([f"{n}-{m}" for m in range(n % 3 + 1)]) for n in range(TASKS - 200)]
    failing = [submit(f"{LONG} {n}", on_long="error") for n in range(150)]
    results = [embed.delay(f"delayed {n}") for n in range(50)]
    for job in [*jobs, *failing]:
        job.wait(TIMEOUT_S)
    for result in results:
        result.get(timeout=TIMEOUT_S)

    def states() -> Counter[str]:
        return Counter(task["state"] for task in flower.tasks().values())

    expected = Counter(SUCCESS=TASKS - 150, FAILURE=150)
    wait_until(lambda: states() == expected, f"Flower shows {expected}", timeout_s=30)
    tasks = flower.tasks().values()
    assert all(task["received"] and task["started"] for task in tasks)
    assert all(task["runtime"] > 0 for task in tasks if task["state"] == "SUCCESS")
    assert {task["args"] for task in tasks} <= {f"({n} document{'s' * (n > 1)})" for n in (1, 2, 3)}
    assert "word word" not in str([task["kwargs"] + task["args"] for task in tasks])


def test_flower_shows_the_depth_of_both_queues(
    flower: Flower, worker: Worker, broker: RedisServer
) -> None:
    queues = flower.get("queues/length")["active_queues"]
    assert {queue["name"] for queue in queues} == {"embed", "query"}


def test_flower_wants_a_password(flower: Flower) -> None:
    assert httpx.get(f"{flower.url}/api/tasks").status_code == 401
    assert httpx.get(f"{flower.url}/tasks").status_code == 401
