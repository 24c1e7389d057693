"""The limit holds exactly, over any number of web processes, and its room always comes back."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.processes import wait_until
from tests.redis_server import RedisServer
from tests.web_server import WebServer, local_web
from tests.worker import local_worker

LIMIT, CLIENTS, POSTS = 500, 64, 12
LONG = "word " * 300


class Crowd:
    """Many clients that post single texts at once."""

    def __init__(self, web: WebServer) -> None:
        self.url = web.url
        self.jobs: list[str] = []

    def fill(self, round_name: str, *, text: str = "", on_long: str = "chunk") -> Counter[int]:
        """Post more than the limit; how many answers had which status."""
        with ThreadPoolExecutor(CLIENTS) as clients:
            names = [f"{round_name}-{client}" for client in range(CLIENTS)]
            answers = clients.map(lambda name: self._post(name, text, on_long), names)
            return sum(answers, Counter[int]())

    def _post(self, name: str, text: str, on_long: str) -> Counter[int]:
        statuses = Counter[int]()
        with httpx.Client(base_url=self.url, timeout=60) as client:
            for number in range(POSTS):
                body = {"text": f"{name}-{number} {text}", "on_long": on_long}
                answer = client.post("/embed", json=body)
                statuses[answer.status_code] += 1
                if answer.status_code == 202:
                    self.jobs.append(answer.json()["job_id"])
                else:
                    assert int(answer.headers["retry-after"]) >= 1
        return statuses

    def queue(self) -> dict[str, int]:
        queue: dict[str, int] = httpx.get(f"{self.url}/queue").json()
        return queue

    def cancel_all(self) -> None:
        with httpx.Client(base_url=self.url, timeout=60) as client:
            for job in self.jobs:
                client.delete(f"/jobs/{job}").raise_for_status()

    def states(self) -> Counter[str]:
        with httpx.Client(base_url=self.url, timeout=60) as client:
            jobs = [client.get(f"/jobs/{job}").json() for job in self.jobs]
        return sum((Counter({name: job[name] for name in COUNTS}) for job in jobs), Counter())


COUNTS = ("done", "failed", "cancelled")


@pytest.fixture
def crowd(broker: RedisServer, stack_env: dict[str, str], tmp_path: Path) -> Iterator[Crowd]:
    env = stack_env | {"EMBED_QUEUE_LIMIT": str(LIMIT)}
    with local_web(tmp_path, env, workers=8) as web:
        yield Crowd(web)


EXACTLY = Counter({202: LIMIT, 429: CLIENTS * POSTS - LIMIT})


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_limit_is_exact_and_room_comes_back(
    crowd: Crowd, stack_env: dict[str, str], tmp_path: Path
) -> None:
    def drain() -> None:
        with local_worker(tmp_path, stack_env):
            wait_until(lambda: crowd.queue()["outstanding"] == 0, "all is settled", timeout_s=60)

    assert crowd.fill("first") == EXACTLY
    assert crowd.queue()["outstanding"] == LIMIT
    drain()
    assert crowd.states() == Counter(done=LIMIT)

    crowd.jobs.clear()
    assert crowd.fill("after done") == EXACTLY
    crowd.cancel_all()
    assert crowd.states() == Counter(cancelled=LIMIT)
    assert (crowd.queue()["outstanding"], crowd.queue()["waiting"]) == (0, 0)

    crowd.jobs.clear()
    assert crowd.fill("after cancel", text=LONG, on_long="error") == EXACTLY
    drain()
    assert crowd.states() == Counter(failed=LIMIT)

    crowd.jobs.clear()
    assert crowd.fill("after failures") == EXACTLY
