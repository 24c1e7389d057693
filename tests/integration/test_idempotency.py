"""`Idempotency-Key` over HTTP: the same request again is the same job."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import orjson
import pytest

from tasks.marks import MARKS
from tests.redis_server import RedisServer
from tests.web_server import WebServer, local_web

LIMIT = 100


@pytest.fixture(scope="module")
def web(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    env = {
        "EMBED_BROKER_URL": redis_server.url,
        "EMBED_MODEL": "fake",
        "EMBED_QUEUE_LIMIT": str(LIMIT),
    }
    with local_web(tmp_path_factory.mktemp("web"), env, workers=2) as server:
        yield server


def post(client: httpx.Client, key: str, *texts: str, owner: str | None = None) -> httpx.Response:
    headers = {"Idempotency-Key": key}
    if owner is not None:
        headers["Authorization"] = f"Bearer {owner}"
    return client.post("/embed", content=orjson.dumps({"texts": texts}), headers=headers)


def outstanding(client: httpx.Client) -> int:
    return int(client.get("/queue").json()["outstanding"])


def test_the_same_request_again_is_the_same_job(client: httpx.Client) -> None:
    first, again = post(client, "k", "a", "b"), post(client, "k", "a", "b")
    assert first.status_code == again.status_code == 202
    assert first.json() == again.json()
    assert first.headers["location"] == again.headers["location"]
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert outstanding(client) == 2


def test_of_many_at_once_one_is_accepted(client: httpx.Client, web: WebServer) -> None:
    def once(_: int) -> str:
        with httpx.Client(base_url=web.url) as own:  # its connection may go to either process
            return str(post(own, "k", "a").json()["job_id"])

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(once, range(32)))) == 1
    assert outstanding(client) == 1


def test_the_same_key_with_another_body_is_refused(client: httpx.Client) -> None:
    post(client, "k", "a")
    refused = post(client, "k", "b")
    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")
    assert outstanding(client) == 1


def test_a_key_belongs_to_its_sender(client: httpx.Client) -> None:
    jobs = {post(client, "k", "a", owner=owner).json()["job_id"] for owner in ("x", "y", "x")}
    assert len(jobs) == 2


@pytest.mark.parametrize("key", ["", "k" * 256])
def test_a_key_that_is_none_is_refused(key: str, client: httpx.Client) -> None:
    refused = post(client, key, "a")
    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_invalid")


def test_what_was_refused_leaves_no_mark(client: httpx.Client, broker: RedisServer) -> None:
    post(client, "other", *(f"text {number}" for number in range(LIMIT)))
    assert post(client, "k", "a").status_code == 429
    assert post(client, "k", "").status_code == 422
    broker.client.flushdb()
    assert post(client, "k", "b").status_code == 202


def test_marks_expire(client: httpx.Client, broker: RedisServer) -> None:
    post(client, "k", "a")
    (key,) = broker.client.keys(f"{MARKS}*")
    assert 0 < broker.client.ttl(key) <= 86400
