"""Queries through web, Redis and a real worker: OpenAI's client is pleased, and search finds."""

import base64
import os
import signal
import socket
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
import openai
import orjson
import pytest

from tasks import embed
from tasks.queries import ASKED
from tasks.settings import Settings
from tests.acceptance.asking import QUERY_LIMIT, left_over
from tests.processes import wait_until
from tests.redis_server import RedisServer
from tests.web_server import WebServer
from tests.worker import Worker
from workers.encoder import encode_texts
from workers.fake import MAX_TOKENS, FakeEncoder

TIMEOUT_S = 60


@pytest.fixture
def http(web: WebServer, worker: Worker) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=web.url, timeout=TIMEOUT_S) as client:
        yield client


@pytest.fixture
def client(web: WebServer, worker: Worker) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{web.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def expected(*texts: str) -> np.ndarray:
    return encode_texts(FakeEncoder(Settings(model="fake")), texts)


def test_openais_client_gets_vectors(client: openai.OpenAI, redis_server: RedisServer) -> None:
    one = client.embeddings.create(input="hello world", model="fake")
    assert np.allclose(one.data[0].embedding, expected("hello world")[0])
    texts = [f"text number {n}" for n in range(150)]
    many = client.embeddings.create(input=texts, model="fake", encoding_format="float")
    assert np.allclose([row.embedding for row in many.data], expected(*texts))
    assert [row.index for row in many.data] == list(range(150))
    assert (many.model, many.usage.prompt_tokens, many.usage.total_tokens) == ("fake", 450, 450)
    assert left_over(redis_server) == []


def test_many_at_once_get_their_own_answers(
    client: openai.OpenAI, redis_server: RedisServer
) -> None:
    def ask(number: int) -> bool:
        texts = [f"caller {number} text {n}" for n in range(1 + number % 3)]
        answer = client.embeddings.create(input=texts, model="fake")
        return np.allclose([row.embedding for row in answer.data], expected(*texts))

    with ThreadPoolExecutor(20) as callers:
        assert all(callers.map(ask, range(100)))
    assert left_over(redis_server) == []


def test_base64_is_little_endian_float32(http: httpx.Client) -> None:
    body = {"input": ["a b"], "model": "fake", "encoding_format": "base64", "dimensions": 384}
    answer = http.post("/v1/embeddings", json=body).raise_for_status().json()
    vector = struct.unpack("<384f", base64.b64decode(answer["data"][0]["embedding"]))
    assert np.array_equal(np.array(vector, dtype=np.float32), expected("a b")[0])


@pytest.mark.parametrize(
    ("wish", "status", "param", "code"),
    [
        ({"input": "a", "model": "text-embedding-3-small"}, 404, None, "model_not_found"),
        ({"input": "a"}, 400, "model", "model_missing"),
        ({"input": [1, 2], "model": "fake"}, 400, "input", "tokens_not_supported"),
        ({"input": [[1, 2]], "model": "fake"}, 400, "input", "tokens_not_supported"),
        ({"input": "", "model": "fake"}, 400, "input", "invalid_value"),
        ({"input": [], "model": "fake"}, 400, "input", "invalid_value"),
        ({"input": ["a"] * 2049, "model": "fake"}, 400, "input", "invalid_value"),
        ({"input": "a", "model": "fake", "dimensions": 5}, 400, "dimensions", "invalid_value"),
        ({"input": "a", "model": "fake", "encoding_format": "x"}, 400, None, "invalid_value"),
        ({"input": "a", "model": "fake", "colour": "red"}, 400, None, "field_unknown"),
        ({"input": ["a"] * (QUERY_LIMIT + 1), "model": "fake"}, 413, None, "request_too_large"),
        (
            {"input": ["a", "b " * 300], "model": "fake"},
            400,
            "input",
            "context_length_exceeded",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_done_is_refused_in_openais_shape(
    http: httpx.Client,
    redis_server: RedisServer,
    wish: dict[str, Any],
    status: int,
    param: str | None,
    code: str,
) -> None:
    response = http.post("/v1/embeddings", json=wish)
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == ("invalid_request_error", code)
    assert error["message"]
    assert param in (None, error["param"])
    assert left_over(redis_server) == []


def test_a_text_of_exactly_the_models_length_is_read(client: openai.OpenAI) -> None:
    text = " ".join(["word"] * MAX_TOKENS)
    assert client.embeddings.create(input=text, model="fake").usage.prompt_tokens == MAX_TOKENS


def test_search_finds_what_was_embedded(http: httpx.Client, redis_server: RedisServer) -> None:
    documents = [{"id": f"d{n}", "text": f"found {n}", "metadata": {"n": n}} for n in range(20)]
    embed.delay(documents, collection="searched").get(timeout=TIMEOUT_S)
    body: dict[str, Any] = {"text": "found 7", "collection": "searched", "limit": 3}
    answer = http.post("/search", json=body).raise_for_status().json()
    assert (answer["collection"], answer["model"], len(answer["hits"])) == ("searched", "fake", 3)
    best = answer["hits"][0]
    assert best.pop("score") == pytest.approx(1, abs=1e-4)
    assert best.pop("id")
    assert best == {
        "text": "found 7",
        "document_id": "d7",
        "chunk": 0,
        "chunks": 1,
        "metadata": {"n": 7},
    }
    body["filter"] = {"must": [{"key": "metadata.n", "range": {"gt": 17}}]}
    hits = http.post("/search", json=body).raise_for_status().json()["hits"]
    assert {hit["document_id"] for hit in hits} == {"d18", "d19"}
    assert left_over(redis_server) == []


@pytest.mark.parametrize(
    ("wish", "status", "code"),
    [
        ({"text": "a", "collection": "no-such"}, 404, "collection_not_found"),
        ({"text": "a", "collection": "../x"}, 422, "collection_invalid"),
        ({"text": " "}, 422, "text_invalid"),
        ({"text": "a", "limit": 0}, 422, "limit_invalid"),
        ({"text": "a", "filter": []}, 422, "filter_invalid"),
        ({"text": "a", "top_k": 3}, 422, "field_unknown"),
        ({"text": "b " * 300}, 422, "text_too_long"),
        ({"text": "a", "collection": "searched-2", "filter": {"mst": 1}}, 422, "store_rejected"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_search_that_cannot_be_done_is_a_problem(
    http: httpx.Client, wish: dict[str, Any], status: int, code: str
) -> None:
    embed.delay("a text makes the collection", collection="searched-2").get(timeout=TIMEOUT_S)
    response = http.post("/search", json=wish)
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.status_code, response.json()["code"]) == (status, code), response.text


@contextmanager
def stopped(worker: Worker) -> Iterator[None]:
    """The worker's processes stand still for the block; its announcement lasts some seconds."""
    everyone = [worker.program.pid, *(child.pid for child in worker.children())]
    for pid in everyone:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in everyone:
            os.kill(pid, signal.SIGCONT)


def call(web: WebServer, texts: Sequence[str]) -> socket.socket:
    body = orjson.dumps({"input": texts, "model": "fake"})
    caller = socket.create_connection(("127.0.0.1", web.port))
    head = f"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    caller.sendall(head.encode() + body)
    return caller


def test_a_query_whose_client_is_gone_is_no_work(
    web: WebServer, worker: Worker, redis_server: RedisServer
) -> None:
    with stopped(worker):
        caller = call(web, ["nobody listens"])
        wait_until(lambda: redis_server.client.zcard(ASKED), "it is asked")
        caller.close()
        wait_until(lambda: not redis_server.client.exists(ASKED), "it is forgotten")
    wait_until(lambda: not redis_server.client.exists("query"), "its message is gone")
    wait_until(lambda: not redis_server.client.exists("unacked"), "none is held")
    assert left_over(redis_server) == []


def test_too_many_queries_are_refused(
    web: WebServer, worker: Worker, redis_server: RedisServer, http: httpx.Client
) -> None:
    with stopped(worker):
        caller = call(web, ["it waits"] * QUERY_LIMIT)
        wait_until(lambda: redis_server.client.zcard(ASKED), "it is asked")
        response = http.post("/v1/embeddings", json={"input": "a", "model": "fake"})
        problem = http.post("/search", json={"text": "a"})
    assert (response.status_code, problem.status_code) == (429, 429)
    assert response.json()["error"]["code"] == problem.json()["code"] == "queue_full"
    assert int(response.headers["retry-after"]) >= 1
    assert caller.recv(12) == b"HTTP/1.1 200"
    caller.close()
    assert left_over(redis_server) == []
