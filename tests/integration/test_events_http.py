"""Server-sent events on a real web process."""

import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import orjson
import pytest

from tests.processes import wait_until
from tests.redis_server import RedisServer
from tests.web_server import WebServer, local_web


@pytest.fixture(scope="module")
def web(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    env = {"EMBED_BROKER_URL": redis_server.url, "EMBED_MODEL": "fake"}
    with local_web(tmp_path_factory.mktemp("web"), env) as server:
        yield server


def accept(client: httpx.Client) -> str:
    return str(client.post("/embed", json={"texts": ["a", "b"]}).json()["job_id"])


def states(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        if line.startswith("data: "):
            yield orjson.loads(line.removeprefix("data: "))["state"]


def test_a_job_is_followed_until_it_is_settled(client: httpx.Client) -> None:
    job_id = accept(client)
    with client.stream("GET", f"/jobs/{job_id}/events") as response:
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        found = states(response.iter_lines())
        assert next(found) == "open"
        client.delete(f"/jobs/{job_id}")
        assert list(found) == ["cancelled"]
    again = client.get(f"/jobs/{job_id}/events", headers={"Last-Event-ID": "settled"})
    assert (again.status_code, again.content) == (204, b"")


@pytest.mark.parametrize("job_id", ["nobody", "a:open"])
def test_an_unknown_job_is_404(client: httpx.Client, job_id: str) -> None:
    response = client.get(f"/jobs/{job_id}/events")
    assert (response.status_code, response.json()["code"]) == (404, "job_not_found")
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_web_that_ends_does_not_wait_for_its_streams(
    broker: RedisServer, tmp_path: Path, number: signal.Signals
) -> None:
    with local_web(tmp_path, {"EMBED_BROKER_URL": broker.url}) as web:
        with httpx.Client(base_url=web.url) as client:
            with client.stream("GET", f"/jobs/{accept(client)}/events") as response:
                found = states(response.iter_lines())
                assert next(found) == "open"
                web.program.send(number)
                assert list(found) == []
                wait_until(lambda: not web.program.running(), "the web has ended")
