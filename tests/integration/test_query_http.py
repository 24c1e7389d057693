"""Queries without a worker, and without Redis: an answer comes soon, and nothing is left."""

import signal
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import httpx
import pytest

from tasks.messages import QUERY_QUEUE, ModelCard
from tasks.presence import WorkerPresence, announce, retire
from tests.processes import wait_until
from tests.redis_server import RedisServer, local_redis
from tests.web_server import WebServer, local_web

PATIENCE_S = 4.0
"""Twice what it may take."""
TIMEOUT_S = 0.5
CARD = ModelCard("fake", 384, 256, "cpu")
BODIES = {"/v1/embeddings": {"input": "a", "model": "fake"}, "/search": {"text": "a"}}


@pytest.fixture(scope="module")
def web(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    env = {"EMBED_BROKER_URL": redis_server.url, "EMBED_QUERY_TIMEOUT_S": str(TIMEOUT_S)}
    with local_web(tmp_path_factory.mktemp("web"), env) as server:
        yield server


@pytest.fixture
def client(web: WebServer, broker: RedisServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=web.url, timeout=PATIENCE_S) as client:
        yield client


def pretend_worker(broker: RedisServer) -> None:
    """One that is announced and does nothing."""
    announce(broker.client, WorkerPresence("w", 1, 1, 1, CARD), ttl_s=60)


def assert_unavailable(response: httpx.Response, code: str) -> None:
    assert response.status_code == 503, response.text
    assert int(response.headers["retry-after"]) >= 1
    body = response.json()
    if response.request.url.path == "/search":
        assert body["code"] == code
    else:
        assert (body["error"]["code"], body["error"]["type"]) == (code, "server_error")


@pytest.mark.parametrize("path", BODIES)
def test_without_a_worker_nobody_waits(
    client: httpx.Client, broker: RedisServer, path: str
) -> None:
    assert_unavailable(client.post(path, json=BODIES[path]), "no_worker")
    assert list(broker.client.scan_iter("*")) == []


@pytest.mark.parametrize("path", BODIES)
def test_a_worker_that_does_not_answer_is_not_waited_for_for_ever(
    client: httpx.Client, broker: RedisServer, path: str
) -> None:
    pretend_worker(broker)
    assert_unavailable(client.post(path, json=BODIES[path]), "no_answer")
    retire(broker.client, "w", 1)
    assert list(broker.client.scan_iter("*")) == []


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [("{", 400, "json_invalid"), ("[]", 400, "request_invalid"), ("x" * 40_000_000, 413, None)],
    ids=["not JSON", "no object", "too large"],
)
def test_a_body_that_is_none_is_refused_in_openais_shape(
    client: httpx.Client, content: str, status: int, code: str | None
) -> None:
    response = client.post("/v1/embeddings", content=content)
    assert response.status_code == status
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert code in (None, response.json()["error"]["code"])


def test_without_redis_queries_are_refused_soon(tmp_path: Path) -> None:
    with local_redis(tmp_path) as own:
        with local_web(tmp_path, {"EMBED_BROKER_URL": own.url, "EMBED_MODEL": "fake"}) as web:
            pretend_worker(own)
            with httpx.Client(base_url=web.url, timeout=PATIENCE_S) as client:
                found: list[httpx.Response] = []
                asker = Thread(
                    target=lambda: found.append(client.post("/search", json=BODIES["/search"]))
                )
                asker.start()
                wait_until(lambda: own.client.llen(QUERY_QUEUE), "it waits")
                own.kill()
                asker.join(PATIENCE_S)
                assert_unavailable(found[0], "broker_down")
                for path, body in BODIES.items():
                    assert_unavailable(client.post(path, json=body), "broker_down")
                own.restart()
                own.program.send(signal.SIGSTOP)
                try:
                    for path, body in BODIES.items():
                        assert_unavailable(client.post(path, json=body), "broker_down")
                finally:
                    own.program.send(signal.SIGCONT)
