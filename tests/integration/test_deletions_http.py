"""Deletions over HTTP: any id in a path, lists, and the same refusals as elsewhere."""

from collections.abc import Iterator
from urllib.parse import quote

import httpx
import orjson
import pytest

from tasks.presence import record_collection
from tasks.roster import read_roster
from tasks.settings import Settings
from tests.integration.test_http import assert_nothing_enqueued, assert_refused
from tests.redis_server import RedisServer
from tests.web_server import WebServer, local_web

LIMIT = 100
ODD_IDS = ("plain", "a/b//c", "100%", "%2F", "안녕 세계", "a?b#c&d", "delete", " ", "a+b;c=d")


@pytest.fixture(scope="module")
def web(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    env = {
        "EMBED_BROKER_URL": redis_server.url,
        "EMBED_MODEL": "fake",
        "EMBED_QUEUE_LIMIT": str(LIMIT),
    }
    with local_web(tmp_path_factory.mktemp("web"), env) as server:
        yield server


def post(client: httpx.Client, body: object, collection: str = "documents") -> httpx.Response:
    path = f"/collections/{collection}/documents/delete"
    return client.post(path, content=orjson.dumps(body))


@pytest.mark.parametrize("name", ODD_IDS)
def test_any_id_stands_in_a_path(
    client: httpx.Client, broker: RedisServer, settings: Settings, name: str
) -> None:
    response = client.delete(f"/collections/my.docs/documents/{quote(name, safe='')}")
    assert response.status_code == 202, response.text
    answer = response.json()
    assert (answer["document_ids"], answer["accepted"]) == ([name], 1)
    assert response.headers["location"] == f"/jobs/{answer['job_id']}"
    job = client.get(response.headers["location"]).json()
    assert (job["state"], job["collection"], job["accepted"]) == ("open", "my.docs", 1)
    roster = read_roster(broker.client, answer["job_id"], settings)
    assert (roster.deletes, [entry.id for entry in roster.entries]) == (True, [name])


def test_a_slash_may_stand_as_it_is(client: httpx.Client) -> None:
    answer = client.delete("/collections/documents/documents/a/b").json()
    assert answer["document_ids"] == ["a/b"]


def test_a_list_is_one_job_and_each_id_is_in_it_once(client: httpx.Client) -> None:
    names = [f"d{number}" for number in range(70)]
    answer = post(client, {"ids": [*names, "d7"]}).json()
    assert (answer["document_ids"], answer["accepted"]) == (names, 70)
    assert client.get("/queue").json()["outstanding"] == 70
    assert client.get("/queue").json()["waiting"] == 2  # messages of 64


def test_deletions_keep_to_the_limits(client: httpx.Client, broker: RedisServer) -> None:
    names = [f"d{number}" for number in range(LIMIT)]
    assert_refused(post(client, {"ids": [*names, "one more"]}), 413, "too_many_documents")
    assert_nothing_enqueued(client, broker)
    assert post(client, {"ids": names}).status_code == 202
    full = client.delete("/collections/documents/documents/a")
    assert_refused(full, 429, "queue_full")
    assert int(full.headers["retry-after"]) > 0


@pytest.mark.parametrize(
    ("body", "status", "code", "index"),
    [
        ({}, 422, "ids_invalid", None),
        ({"ids": "a"}, 422, "ids_invalid", None),
        ({"ids": []}, 422, "ids_empty", None),
        ({"ids": ["a", 7]}, 422, "id_invalid", 1),
        ({"ids": ["a", ""]}, 422, "id_invalid", 1),
        ({"ids": ["a", "b\0"]}, 422, "id_invalid", 1),
        ({"ids": ["x" * 513]}, 422, "id_too_long", 0),
        ({"ids": ["a"], "filter": {}}, 422, "field_unknown", None),
        (["a"], 422, "request_invalid", None),
    ],
)
def test_what_is_wrong_is_refused_and_leaves_nothing(
    client: httpx.Client,
    broker: RedisServer,
    body: object,
    status: int,
    code: str,
    index: int | None,
) -> None:
    assert_refused(post(client, body), status, code, index=index)
    assert_nothing_enqueued(client, broker)


def test_what_is_wrong_in_a_path_is_refused_too(client: httpx.Client, broker: RedisServer) -> None:
    for path, code, index in (
        ("/collections/-docs/documents/a", "collection_invalid", None),
        (f"/collections/documents/documents/{'x' * 513}", "request_invalid", None),
        ("/collections/documents/documents/a%00b", "id_invalid", 0),
        ("/collections/documents/documents/", "request_invalid", None),
    ):
        assert_refused(client.delete(path), 422, code, index=index)
    assert_refused(
        client.post("/collections/c/documents/delete", content=b"{"), 400, "json_invalid"
    )
    assert_nothing_enqueued(client, broker)


def test_documents_of_another_model_may_be_deleted(
    client: httpx.Client, broker: RedisServer
) -> None:
    record_collection(broker.client, "theirs", "another-model", 8)
    assert client.delete("/collections/theirs/documents/a").status_code == 202
    text = {"text": "a", "collection": "theirs"}
    assert_refused(client.post("/embed", json=text), 409, "model_mismatch")
