"""What an API key may send: exact over all web processes, and a refusal leaves nothing."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tasks.admission import redis_client
from tasks.errors import RateExceeded, RequestTooLarge
from tasks.ledger import run
from tasks.messages import ModelCard
from tasks.presence import WorkerPresence, announce
from tasks.rates import charge, give_back
from tasks.settings import Settings
from tests.redis_server import RedisServer
from tests.web_server import WebServer, local_web
from webapp.keyring import Key, digest, write_keys

PER_MINUTE = 4
DRAIN_S = 60 / PER_MINUTE
BYTES = 200
QUEUE_LIMIT = 10


@pytest.fixture(scope="module")
def web(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """Two processes; keys are called by what they may."""
    folder = tmp_path_factory.mktemp("web")
    fields: dict[str, Any] = {"scopes": ["ingest", "search"], "created_at": "2026-01-01T00:00:00Z"}
    limits: dict[str, dict[str, int]] = {
        "few": {"texts_per_minute": PER_MINUTE},
        "many": {"texts_per_minute": 1000},
        "small": {"request_bytes": BYTES},
        "free": {},
    }
    rows = [{"name": n, "sha256": digest(n), **fields, **limit} for n, limit in limits.items()]
    write_keys(folder / "keys.jsonl", [Key.model_validate(row) for row in rows])
    env = {
        "EMBED_BROKER_URL": redis_server.url,
        "EMBED_API_KEYS_FILE": str(folder / "keys.jsonl"),
        "EMBED_QUEUE_LIMIT": str(QUEUE_LIMIT),
        "EMBED_QUERY_TIMEOUT_S": "0.2",
    }
    with local_web(folder, env, workers=2) as server:
        yield server


def post(web: WebServer, key: str, path: str, body: dict[str, Any]) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.post(f"{web.url}{path}", json=body, headers=headers, timeout=30)


def embed(web: WebServer, key: str, count: int) -> httpx.Response:
    return post(web, key, "/embed", {"texts": [f"t{n}" for n in range(count)]})


def assert_refused(response: httpx.Response) -> None:
    assert response.status_code == 429, response.text
    assert 1 <= int(response.headers["retry-after"]) <= 60
    body = response.json()
    problem = body.get("error", body)
    assert problem["code"] == "rate_limit_exceeded"


def test_a_minutes_texts_and_no_more_through_any_number_of_processes(
    web: WebServer, broker: RedisServer
) -> None:
    began = time.monotonic()
    with ThreadPoolExecutor(12) as many:
        answers = list(many.map(lambda _: embed(web, "few", 1), range(36)))
    drained = (time.monotonic() - began) / DRAIN_S
    accepted = [answer for answer in answers if answer.status_code == 202]
    assert PER_MINUTE <= len(accepted) <= PER_MINUTE + drained
    for answer in answers:
        if answer not in accepted:
            assert_refused(answer)
    assert broker.client.llen("embed") == len(accepted)
    assert embed(web, "free", 1).status_code == 202
    assert 0 < broker.client.ttl("embedmill:rate:few") <= 61


def test_queries_count_as_well(web: WebServer, broker: RedisServer) -> None:
    announce(broker.client, WorkerPresence("w", 1, 1, 1, ModelCard("fake", 3, 4, "cpu")), ttl_s=60)
    assert embed(web, "few", PER_MINUTE).status_code == 202
    assert_refused(post(web, "few", "/search", {"text": "a"}))
    response = post(web, "few", "/v1/embeddings", {"input": ["a"], "model": "fake"})
    assert_refused(response)
    assert response.json()["error"]["type"] == "rate_limit_error"
    assert not broker.client.exists("query")


def test_what_was_not_taken_in_does_not_count(web: WebServer, broker: RedisServer) -> None:
    assert embed(web, "many", QUEUE_LIMIT).status_code == 202
    for _ in range(3):
        assert embed(web, "many", QUEUE_LIMIT).json()["code"] == "queue_full"
    level = float(broker.client.hget("embedmill:rate:many", "level") or 0)
    assert level <= QUEUE_LIMIT


def test_a_request_is_no_larger_than_its_key_allows(web: WebServer, broker: RedisServer) -> None:
    assert post(web, "small", "/embed", {"text": "a"}).status_code == 202
    large = {"text": "a" * BYTES}
    assert post(web, "small", "/embed", large).json()["code"] == "request_too_large"
    assert post(web, "small", "/search", large).json()["code"] == "request_too_large"
    assert post(web, "free", "/embed", large).status_code == 202
    too_many = embed(web, "few", PER_MINUTE + 1)
    assert (too_many.status_code, too_many.json()["code"]) == (413, "too_many_documents")


def upload(web: WebServer, key: str, lines: int) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/x-ndjson"}
    body = b"".join(b'{"text": "line %d"}\n' % number for number in range(lines))
    return httpx.post(f"{web.url}/embed", content=body, headers=headers, timeout=30)


def test_an_upload_waits_for_its_keys_rate(
    web: WebServer, broker: RedisServer, settings: Settings
) -> None:
    run(broker.client, charge("many", 999, 1000, settings))
    response = upload(web, "many", 5)
    assert (response.status_code, response.json()["accepted"]) == (202, 5)
    level = float(broker.client.hget("embedmill:rate:many", "level") or 0)
    assert 5 <= level <= 1000


def test_an_upload_ends_at_the_bytes_of_its_key(web: WebServer, broker: RedisServer) -> None:
    response = upload(web, "small", BYTES)
    assert (response.status_code, response.json()["code"]) == (413, "request_too_large")
    assert response.json()["upload"]["accepted"] == broker.client.llen("embed")


def test_a_refusal_says_when_there_is_room(settings: Settings) -> None:
    client = redis_client()
    run(client, charge("k", 60, 60, settings))
    with pytest.raises(RateExceeded) as refused:
        run(client, charge("k", 30, 60, settings))
    assert 25 <= refused.value.retry_after_s <= 30
    run(client, give_back("k", 45, 60, settings))
    run(client, charge("k", 30, 60, settings))
    run(client, give_back("k", 100, 60, settings))
    assert not client.exists("embedmill:rate:k")
    with pytest.raises(RequestTooLarge):
        charge("k", 61, 60, settings)


def test_room_comes_back_evenly(settings: Settings) -> None:
    client = redis_client()
    run(client, charge("k", 60, 60, settings))
    client.hincrbyfloat("embedmill:rate:k", "at", -30)  # half a minute ago
    run(client, charge("k", 30, 60, settings))
    with pytest.raises(RateExceeded):
        run(client, charge("k", 30, 60, settings))
