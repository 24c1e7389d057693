"""What the local Qdrant server refuses, and that nothing of a refused request is stored."""

import socket
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson
import pytest

from compose.qdrant.routes import MAX_BODY_BYTES
from tests.qdrant_server import LocalQdrant, local_qdrant

POINT: dict[str, Any] = {"id": 2, "vector": [1, 2], "payload": {"a": 1}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalQdrant]:
    with local_qdrant(tmp_path_factory.mktemp("qdrant")) as running:
        yield running


@pytest.fixture(scope="module")
def http(server: LocalQdrant) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


@pytest.fixture
def collection(http: httpx.Client) -> str:
    """The path of a collection of two dimensions that holds point 1."""
    path = f"/collections/{uuid.uuid4().hex}"
    http.put(path, json={"vectors": {"size": 2, "distance": "Dot"}}).raise_for_status()
    point = {**POINT, "id": 1}
    http.put(f"{path}/points", json={"points": [point]}).raise_for_status()
    return path


def count(http: httpx.Client, collection: str) -> int:
    answer = http.post(f"{collection}/points/count", json={}).raise_for_status().json()
    number: int = answer["result"]["count"]
    return number


def assert_refused(answer: httpx.Response, status: int, text: str = "") -> None:
    body = answer.json()
    assert (answer.status_code, list(body)) == (status, ["status", "time"]), body
    assert text in body["status"]["error"]


def test_the_root_tells_title_and_version(http: httpx.Client) -> None:
    body = http.get("/").json()
    assert body["title"].startswith("qdrant")
    assert body["version"].count(".") == 2


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz"])
def test_health_is_plain_text(http: httpx.Client, path: str) -> None:
    answer = http.get(path).raise_for_status()
    assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"points": [POINT, {**POINT, "id": 3, "vector": [1]}]}, 400, "expected dim: 2, got 1"),
        ({"points": [POINT, {**POINT, "id": -1}]}, 400, "not a valid point ID"),
        ({"points": [POINT, {**POINT, "payload": []}]}, 400, "payload must be an object"),
        ({"points": [POINT, {**POINT, "vectors": [1, 2]}]}, 400, "unknown field 'vectors'"),
        ({"points": [POINT, {"id": 3}]}, 400, "vector must be"),
        ({"points": [POINT, {**POINT, "vector": {"a": [1, 2]}}]}, 501, "named"),
        ({"points": [POINT, {**POINT, "vector": [[1, 2]] * 2}]}, 501, "multi-vectors"),
        ({"points": [POINT], "shard_key": "a"}, 501, "shard_key"),
        ({"points": [POINT], "wait": True}, 400, "unknown field 'wait'"),
        ({"points": [POINT], "update_mode": "replace"}, 400, "update_mode"),
        ({"points": [POINT], "update_filter": {"musst": []}}, 400, "musst"),
        ({"points": [POINT], "update_filter": {"must": [{"has_vector": ""}]}}, 501, "HasVector"),
        ({"points": []}, 400, "Empty update request"),
        ({}, 400, "either `points` or `batch`"),
        ([POINT], 400, "must be an object"),
        ({"batch": {"ids": [2, 3], "vectors": [[1, 2]]}}, 400, "as many"),
        ({"batch": {"ids": [2], "vectors": {"a": [[1, 2]]}}}, 501, "named vectors"),
    ],
)
def test_an_upsert_is_refused_whole(
    http: httpx.Client, collection: str, body: object, status: int, text: str
) -> None:
    assert_refused(http.put(f"{collection}/points", json=body), status, text)
    assert count(http, collection) == 1


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "1e39", "9" * 400, "true", '"1"'])
def test_a_vector_of_anything_but_finite_numbers_is_refused(
    http: httpx.Client, collection: str, number: str
) -> None:
    body = f'{{"points":[{{"id":2,"vector":[1,{number}]}}]}}'
    assert_refused(http.put(f"{collection}/points", content=body), 400)
    assert count(http, collection) == 1


@pytest.mark.parametrize("levels", [65, 130, 900, 5000])
def test_a_payload_that_the_log_could_not_read_back_is_refused(
    http: httpx.Client, collection: str, levels: int
) -> None:
    payload = '{"a":' * levels + "1" + "}" * levels
    body = f'{{"points":[{{"id":2,"vector":[1,2],"payload":{payload}}}]}}'
    assert_refused(http.put(f"{collection}/points", content=body), 400)
    assert count(http, collection) == 1


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"vectors": {"size": 2, "distance": "Dot"}, "shard_number": 2}, 501, "shard_number"),
        ({"vectors": {"size": 2, "distance": "Dot"}, "replication_factor": 2}, 501, "replication"),
        ({"vectors": {"size": 2, "distance": "Dot"}, "sparse_vectors": {"a": {}}}, 501, "sparse"),
        (
            {
                "vectors": {"size": 2, "distance": "Dot"},
                "quantization_config": {"scalar": {"type": "int8"}},
            },
            501,
            "quantization_config",
        ),
        ({"vectors": {"size": 2, "distance": "Dot"}, "hnsw_config": {"m": 4}}, 501, "hnsw_config"),
        ({"vectors": {"size": 2, "distance": "Dot", "datatype": "uint8"}}, 501, "datatype"),
        ({"vectors": {"dense": {"size": 2, "distance": "Dot"}}}, 501, "unnamed"),
        ({}, 501, "unnamed"),
        ({"vectors": {"size": 0, "distance": "Dot"}}, 400, "size"),
        ({"vectors": {"size": 65537, "distance": "Dot"}}, 400, "size"),
        ({"vectors": {"size": "2", "distance": "Dot"}}, 400, "size"),
        ({"vectors": {"size": 2, "distance": "Hamming"}}, 400, "distance"),
        ({"vectors": {"size": 2, "distance": "Dot"}, "metadata": [1]}, 400, "metadata"),
        ({"vectors": {"size": 2, "distance": "Dot"}, "meta": {}}, 400, "meta"),
    ],
)
def test_a_collection_it_could_not_keep_to_is_refused(
    http: httpx.Client, body: object, status: int, text: str
) -> None:
    path = f"/collections/{uuid.uuid4().hex}"
    assert_refused(http.put(path, json=body), status, text)
    assert http.get(f"{path}/exists").json()["result"] == {"exists": False}


@pytest.mark.parametrize("name", ["a%5Cb", "a%3Fb", "x" * 256, "a%00b"])
def test_a_name_that_qdrant_refuses_is_refused(http: httpx.Client, name: str) -> None:
    body = {"vectors": {"size": 2, "distance": "Dot"}}
    assert_refused(http.put(f"/collections/{name}", json=body), 400, "name")


@pytest.mark.parametrize(
    "case",
    [
        ("POST", "/points/query", {"query": [1]}, 400, "expected dim"),
        ("POST", "/points/query", {"query": [1, 1], "limit": 0}, 400, "limit"),
        ("POST", "/points/query", {"query": [1, 1], "limit": 2**63}, 400, "limit"),
        ("POST", "/points/query", {"query": [1, 1], "offset": -1}, 400, "offset"),
        ("POST", "/points/query", {"query": [1, 1], "top": 3}, 400, "top"),
        ("POST", "/points/query", {}, 501, "nearest"),
        ("POST", "/points/query", {"query": {"fusion": "rrf"}}, 501, "nearest"),
        ("POST", "/points/query", {"query": {"recommend": {"positive": [1]}}}, 501, "nearest"),
        ("POST", "/points/query", {"query": [1, 1], "prefetch": []}, 501, "prefetch"),
        ("POST", "/points/query", {"query": [1, 1], "using": "a"}, 501, "using"),
        ("POST", "/points/query", {"query": [1, 1], "params": {"indexed_only": True}}, 501, ""),
        ("POST", "/points/query", {"query": [1, 1], "with_vector": ["a"]}, 501, "named"),
        ("POST", "/points/query", {"query": [1, 1], "with_payload": ["a["]}, 400, "path"),
        ("POST", "/points/scroll", {"order_by": "a"}, 501, "order_by"),
        ("POST", "/points/scroll", {"offset": "x"}, 400, "point ID"),
        ("POST", "/points/count", {"filter": {"must": [{"key": "a"}]}}, 400, "exactly one"),
        ("POST", "/points", {"ids": [1.5]}, 400, "ids"),
        ("POST", "/points/delete", {"points": []}, 400, "Empty"),
        ("POST", "/points/delete", {"points": ["x"]}, 400, "point ID"),
        ("POST", "/points/delete", {}, 400, "points"),
        ("POST", "/points/delete", {"filter": {"min_should": None, "foo": 1}}, 400, "foo"),
        ("PUT", "/index", {"field_name": "a", "field_schema": "text"}, 501, "keyword"),
        ("PUT", "/index", {"field_name": "a"}, 501, "keyword"),
        ("PUT", "/index", {"field_name": "a[", "field_schema": "keyword"}, 400, "path"),
        (
            "PUT",
            "/index",
            {"field_name": "a", "field_schema": {"type": "keyword", "is_tenant": True}},
            501,
            "is_tenant",
        ),
        ("PUT", "/points?wait=maybe", {"points": [POINT]}, 400, "wait"),
        ("PUT", "/points?later=true", {"points": [POINT]}, 400, "later"),
        ("PATCH", "", {"optimizers_config": {"indexing_threshold": 1}}, 501, ""),
        ("POST", "/points/payload", {"payload": {}, "points": [1]}, 501, ""),
        ("POST", "/points/batch", {"operations": []}, 501, ""),
        ("POST", "/points/query/batch", {"searches": []}, 501, ""),
        ("POST", "/points/search", {"vector": [1, 2], "limit": 1}, 501, ""),
        ("POST", "/facet", {"key": "a"}, 501, ""),
        ("POST", "/snapshots", {}, 501, ""),
        ("DELETE", "/index/a", None, 501, ""),
        ("GET", "/cluster", None, 501, ""),
        ("GET", "/points/x", None, 400, "point ID"),
        ("GET", "/points/99", None, 404, "99"),
    ],
)
def test_other_requests_are_refused(
    http: httpx.Client, collection: str, case: tuple[str, str, object, int, str]
) -> None:
    method, path, body, status, text = case
    assert_refused(http.request(method, collection + path, json=body), status, text)
    assert count(http, collection) == 1


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/collections/aliases"), ("GET", "/aliases"), ("GET", "/snapshots"), ("PUT", "/x")],
)
def test_other_routes_are_refused(http: httpx.Client, method: str, path: str) -> None:
    assert_refused(http.request(method, path), 501)


def test_one_point_is_read_by_its_path(http: httpx.Client, collection: str) -> None:
    result = http.get(f"{collection}/points/1").json()["result"]
    assert result == {"id": 1, "vector": [1.0, 2.0], "payload": {"a": 1}}


def test_a_body_over_the_limit_is_413(http: httpx.Client, collection: str) -> None:
    body = b'{"points":[' + b" " * MAX_BODY_BYTES
    assert_refused(http.put(f"{collection}/points", content=body), 413, "larger than allowed")


def test_a_body_of_the_limit_is_stored(http: httpx.Client, collection: str) -> None:
    frame = {"points": [{"id": 2, "vector": [1, 2], "payload": {"text": ""}}]}
    text = "x" * (MAX_BODY_BYTES - len(orjson.dumps(frame)))
    frame["points"][0]["payload"] = {"text": text}
    http.put(f"{collection}/points", content=orjson.dumps(frame)).raise_for_status()
    stored = http.get(f"{collection}/points/2").json()["result"]["payload"]["text"]
    assert len(stored) == len(text)


def test_half_a_body_is_not_applied(
    server: LocalQdrant, http: httpx.Client, collection: str
) -> None:
    address = urlsplit(server.url)
    body = orjson.dumps({"points": [POINT]})
    head = f"PUT {collection}/points HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body) + 1}\r\n\r\n"
    with socket.create_connection((address.hostname or "", address.port or 0)) as connection:
        connection.sendall(head.encode() + body)
    assert count(http, collection) == 1
    assert http.get("/readyz").status_code == 200
