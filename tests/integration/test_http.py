"""HTTP on a real Redis: what is accepted, what is refused, and that a refusal leaves nothing."""

import json
import re
import signal
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tasks.messages import ModelCard, text_id
from tasks.presence import WorkerPresence, announce, record_collection
from tests.processes import Program, wait_until
from tests.redis_server import RedisServer, local_redis
from tests.web_server import WebServer, local_web

LIMIT = 5000
PATIENCE_S = 4.0
"""An answer comes within two seconds; twice that is room for a busy machine, and no hang."""


@pytest.fixture(scope="module")
def web(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    env = {
        "EMBED_BROKER_URL": redis_server.url,
        "EMBED_MODEL": "fake",
        "EMBED_QUEUE_LIMIT": str(LIMIT),
        "EMBED_STALL_S": "1",
    }
    with local_web(tmp_path_factory.mktemp("web"), env) as server:
        yield server


def post(client: httpx.Client, body: Any) -> httpx.Response:
    return client.post("/embed", content=orjson.dumps(body))


def assert_refused(
    response: httpx.Response, status: int, code: str, *, index: int | None = None
) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert (problem["code"], problem["status"]) == (code, status)
    assert problem.get("index") == index
    assert len(response.content) < 1000  # what was sent is not sent back


def assert_nothing_enqueued(client: httpx.Client, broker: RedisServer) -> None:
    queue = client.get("/queue").json()
    assert (queue["outstanding"], queue["outstanding_bytes"], queue["waiting"]) == (0, 0, 0)
    assert broker.client.keys("embedmill:job*") == []


@pytest.mark.parametrize(
    ("body", "ids"),
    [
        ({"text": "hello world"}, [text_id("hello world")]),
        ({"text": "hello", "id": "1", "metadata": {"a": [1, None]}}, ["1"]),
        ({"texts": ["a", "b"]}, [text_id("a"), text_id("b")]),
        ({"texts": ["a", "a"]}, [text_id("a"), text_id("a")]),
        ({"documents": [{"text": "a", "id": "x"}, {"text": "b"}]}, ["x", text_id("b")]),
        ({"text": "안녕하세요 🙂", "collection": "other", "on_long": "truncate"}, None),
    ],
)
def test_an_accepted_request_is_a_job(
    client: httpx.Client, body: dict[str, Any], ids: list[str] | None
) -> None:
    response = post(client, body)
    assert response.status_code == 202
    accepted = response.json()
    assert ids is None or accepted["document_ids"] == ids
    job = client.get(response.headers["location"]).json()
    assert job["job_id"] == accepted["job_id"]
    assert (job["state"], job["accepted"]) == ("open", len(accepted["document_ids"]))
    assert job["collection"] == body.get("collection", "documents")


@pytest.mark.parametrize(
    ("body", "status", "code", "index"),
    [
        ({"text": ""}, 422, "text_empty", 0),
        ({"texts": ["a", " \n\t\u3000"]}, 422, "text_empty", 1),
        ({"text": "x" * 10_000_000}, 422, "text_too_large", 0),
        ({"texts": ["x"] * 100_000}, 413, "too_many_documents", None),
        ({"texts": ["a", "b\0c"]}, 422, "text_invalid", 1),
        ({"text": 5}, 422, "text_invalid", 0),
        ({"texts": ["a", 5]}, 422, "document_invalid", 1),
        ({"texts": "a"}, 422, "form_invalid", None),
        ({"documents": [{"text": "a"}, "b"]}, 422, "document_invalid", 1),
        ({"documents": [{"text": "a"}, {"id": "b"}]}, 422, "text_invalid", 1),
        ({"documents": [{"text": "a", "title": "b"}]}, 422, "field_unknown", 0),
        ({"documents": []}, 422, "documents_empty", None),
        ({"text": "a", "texts": ["b"]}, 422, "form_invalid", None),
        ({"texts": ["b"], "id": "1"}, 422, "form_invalid", None),
        ({}, 422, "form_invalid", None),
        ([], 422, "request_invalid", None),
        ("text", 422, "request_invalid", None),
        ({"text": "a", "colection": "b"}, 422, "field_unknown", None),
        ({"text": "a", "collection": "../etc"}, 422, "collection_invalid", None),
        ({"text": "a", "collection": 5}, 422, "collection_invalid", None),
        ({"text": "a", "on_long": "split"}, 422, "on_long_invalid", None),
        ({"documents": [{"text": "a"}, {"text": "b", "id": "i" * 10_000}]}, 422, "id_too_long", 1),
        ({"text": "a", "id": ""}, 422, "id_invalid", 0),
        ({"text": "a", "id": 7}, 422, "id_invalid", 0),
        ({"text": "a", "metadata": [1]}, 422, "metadata_invalid", 0),
        ({"text": "a", "metadata": {"k": "x" * 100_000}}, 422, "metadata_too_large", 0),
        ({"text": "a", "metadata": {"k": "\0"}}, 422, "metadata_invalid", 0),
        (
            {"documents": [{"text": "a", "id": "1"}, {"text": "b", "id": "1"}]},
            422,
            "id_duplicate",
            1,
        ),
        ({"documents": [{"text": "a"}, {"text": "b", "id": text_id("a")}]}, 422, "id_duplicate", 1),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_input_is_refused_whole(
    client: httpx.Client,
    broker: RedisServer,
    body: Any,
    status: int,
    code: str,
    index: int | None,
) -> None:
    assert_refused(post(client, body), status, code, index=index)
    assert_nothing_enqueued(client, broker)


@pytest.mark.parametrize(
    "body",
    [
        b'{"text": "\xff\xfe"}',
        b'{"text": "\\ud800"}',
        b'{"text": "a"',
        b"",
        b'{"text": "a", "metadata": {"n": NaN}}',
        b'{"text": "a", "metadata": ' + b'{"k":' * 5000 + b"1" + b"}" * 5000 + b"}",
    ],
    ids=["utf8", "surrogate", "cut", "empty", "nan", "5000 deep"],
)
def test_what_is_not_json_is_refused(
    client: httpx.Client, broker: RedisServer, body: bytes
) -> None:
    assert_refused(client.post("/embed", content=body), 400, "json_invalid")
    assert_nothing_enqueued(client, broker)


def test_deep_metadata_is_refused(client: httpx.Client, broker: RedisServer) -> None:
    deep: dict[str, Any] = {}
    for _ in range(50):
        deep = {"k": deep}
    assert_refused(post(client, {"text": "a", "metadata": deep}), 422, "metadata_too_deep", index=0)
    assert_nothing_enqueued(client, broker)


def test_a_body_over_the_limit_is_refused(client: httpx.Client, broker: RedisServer) -> None:
    body = b'{"text": "' + b"x" * (33 * 1024 * 1024) + b'"}'
    assert_refused(client.post("/embed", content=body), 413, "request_too_large")
    assert_nothing_enqueued(client, broker)


def test_a_full_queue_says_when_to_come_back(client: httpx.Client) -> None:
    assert post(client, {"texts": [f"t{i}" for i in range(LIMIT - 1000)]}).status_code == 202
    response = post(client, {"texts": [f"u{i}" for i in range(1001)]})
    assert_refused(response, 429, "queue_full")
    assert response.headers["retry-after"] == "30"
    assert post(client, {"texts": [f"u{i}" for i in range(1000)]}).status_code == 202


def round_trips(broker: RedisServer) -> int:
    calls: dict[str, dict[str, int]] = broker.client.info("commandstats")
    return sum(calls.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("eval", "evalsha"))


def test_posts_at_once_share_round_trips_and_keep_their_answers(
    client: httpx.Client, broker: RedisServer
) -> None:
    record_collection(broker.client, "theirs", "another-model", 384)
    post(client, {"text": "the script is loaded"})
    before = round_trips(broker)
    collections = ["theirs" if number % 4 == 0 else "documents" for number in range(40)]
    bodies = [{"text": f"t{i}", "collection": name} for i, name in enumerate(collections)]
    broker.client.client_pause(400, all=False)
    with ThreadPoolExecutor(40) as many:
        answers = list(many.map(lambda body: post(client, body), bodies))
    assert [a.status_code for a in answers] == [409 if i % 4 == 0 else 202 for i in range(40)]
    fine = [(a.json(), i) for i, a in enumerate(answers) if a.status_code == 202]
    assert all(accepted["document_ids"] == [text_id(f"t{i}")] for accepted, i in fine)
    assert len({accepted["job_id"] for accepted, _ in fine}) == 30
    assert round_trips(broker) - before < 20
    assert client.get("/queue").json()["outstanding"] == 31


def test_clients_that_hang_up_harm_nobody(
    web: WebServer, client: httpx.Client, broker: RedisServer
) -> None:
    def hang_up(number: int) -> None:
        body = orjson.dumps({"text": f"gone {number}"})
        head = f"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", web.port)) as connection:
            connection.sendall(head.encode() + body)

    def stay(number: int) -> int:
        return post(client, {"text": f"here {number}"}).status_code

    broker.client.client_pause(400, all=False)
    with ThreadPoolExecutor(40) as many:
        gone = [many.submit(hang_up, number) for number in range(20)]
        stayed = list(many.map(stay, range(20)))
    assert stayed == [202] * 20
    assert not any(future.exception() for future in gone)
    totals = client.get("/queue").json()
    assert 20 <= totals["outstanding"] == totals["waiting"] <= 40


def test_a_cancelled_job_frees_its_room_and_its_memory(
    client: httpx.Client, broker: RedisServer
) -> None:
    kept = post(client, {"texts": ["keep me"]}).json()["job_id"]
    gone = post(client, {"texts": [f"t{i}" for i in range(300)]}).json()["job_id"]
    job = client.delete(f"/jobs/{gone}").json()
    assert (job["state"], job["cancelled"]) == ("cancelled", 300)
    assert client.get("/queue").json()["outstanding"] == 1
    (left,) = broker.client.lrange("embed", 0, -1)
    assert kept in str(left)


def test_unknown_jobs_and_paths_are_404(client: httpx.Client) -> None:
    assert_refused(client.get("/jobs/nope"), 404, "job_not_found")
    assert_refused(client.delete("/jobs/nope"), 404, "job_not_found")
    job = post(client, {"text": "a"}).json()["job_id"]
    for neighbour in ("open", "ids", "errors"):
        assert_refused(client.get(f"/jobs/{job}:{neighbour}"), 404, "job_not_found")
        assert_refused(client.delete(f"/jobs/{job}:{neighbour}"), 404, "job_not_found")
    assert_refused(client.get("/nope"), 404, "not_found")
    assert_refused(client.get("/embed"), 405, "method_not_allowed")
    assert_refused(client.get("/readyz?scope=all"), 422, "request_invalid")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/jobs/x", "DELETE, GET"),
        ("/dead", "DELETE, GET"),
        ("/dead/1-1", "DELETE, GET"),
        ("/dead/replay", "POST"),
        ("/search", "POST"),
    ],
)
def test_a_wrong_method_is_told_which_ones_there_are(
    client: httpx.Client, path: str, allowed: str
) -> None:
    response = client.put(path)
    assert_refused(response, 405, "method_not_allowed")
    assert response.headers["allow"] == allowed


def test_a_collection_of_another_model_is_refused_at_the_door(
    client: httpx.Client, broker: RedisServer
) -> None:
    record_collection(broker.client, "theirs", "another-model", 384)
    assert_refused(post(client, {"text": "a", "collection": "theirs"}), 409, "model_mismatch")


def worker(**changes: Any) -> WorkerPresence:
    card = ModelCard("fake", 384, 256, "cpu")
    fields = {"name": "w@h", "pid": 1, "concurrency": 2, "warm": 2, "card": card, **changes}
    return WorkerPresence(**fields)


def troubles(client: httpx.Client) -> list[str]:
    response = client.get("/readyz")
    found = [trouble["code"] for trouble in response.json()["troubles"]]
    assert response.status_code == (503 if found else 200)
    return found


def test_ready_means_that_someone_works(client: httpx.Client, broker: RedisServer) -> None:
    assert troubles(client) == ["no_worker"]
    assert client.get("/readyz?scope=accept").status_code == 200
    announce(broker.client, worker(warm=0), ttl_s=60)
    assert troubles(client) == ["no_worker"]
    announce(broker.client, worker(), ttl_s=60)
    assert troubles(client) == []
    announce(broker.client, worker(card=ModelCard("other", 3, 4, "cpu")), ttl_s=60)
    assert troubles(client) == ["model_mismatch"]


def test_ready_turns_red_when_nothing_moves(client: httpx.Client, broker: RedisServer) -> None:
    announce(broker.client, worker(), ttl_s=60)
    post(client, {"text": "a"})
    wait_until(lambda: troubles(client) == ["stalled"], "the oldest text is old")


def test_ready_turns_red_when_a_child_is_stuck(client: httpx.Client, broker: RedisServer) -> None:
    """Others go on, so that texts are settled and the queue seems to move."""
    announce(broker.client, worker(busy_s=1000.0), ttl_s=60)
    assert troubles(client) == ["stuck"]
    lines = client.get("/metrics").text.splitlines()
    assert {"embedmill_ready 0.0", "embedmill_busy_seconds 1000.0"} <= set(lines)


def test_metrics_show_the_queue(client: httpx.Client) -> None:
    post(client, {"texts": ["a", "b"]})
    lines = client.get("/metrics").text.splitlines()
    assert "embedmill_outstanding_texts 2.0" in lines
    assert "embedmill_accepted_texts_total 2.0" in lines
    assert f"embedmill_outstanding_limit_texts {LIMIT}.0" in lines
    assert "embedmill_ready 0.0" in lines  # nobody works


def test_the_documentation_names_every_route(client: httpx.Client) -> None:
    schema = client.get("/openapi.json").json()
    assert {"/embed", "/jobs/{job_id}", "/queue", "/livez", "/readyz"} <= schema["paths"].keys()
    assert "EmbedIn" in schema["components"]["schemas"]
    assert "#/$defs" not in json.dumps(schema)
    assert "ValidationError" not in json.dumps(schema)  # every error is a problem
    assert "422" in schema["paths"]["/readyz"]["get"]["responses"]
    assert "422" not in schema["paths"]["/jobs/{job_id}"]["get"]["responses"]


def test_the_documentation_needs_no_network(client: httpx.Client) -> None:
    page = client.get("/docs").text
    sources = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert sources
    for source in sources:
        assert source.startswith("/"), source
        assert client.get(source).status_code == 200


def test_each_process_logs_the_queue_when_asked_to(broker: RedisServer, tmp_path: Path) -> None:
    env = {"EMBED_BROKER_URL": broker.url, "EMBED_LOG_QUEUE_S": "0.1"}
    with local_web(tmp_path, env) as web:
        said = f"pid {web.program.pid}: waiting 0, reserved 0, outstanding 0"
        web.program.wait_until(lambda: said in web.program.output(), "a line has come")


def test_without_redis_every_answer_comes_soon(tmp_path: Path) -> None:
    with local_redis(tmp_path) as own:
        with local_web(tmp_path, {"EMBED_BROKER_URL": own.url}) as web:
            own.kill()
            with httpx.Client(base_url=web.url, timeout=PATIENCE_S) as client:
                assert_refused(post(client, {"text": "a"}), 503, "broker_down")
                assert_refused(client.get("/queue"), 503, "broker_down")
                assert_refused(client.get("/jobs/x"), 503, "broker_down")
                assert_refused(client.get("/dead"), 503, "broker_down")
                replay = client.post("/dead/replay", json={"all": True})
                assert_refused(replay, 503, "broker_down")
                assert client.get("/livez").status_code == 200
                assert client.get("/readyz?scope=accept").status_code == 503
                own.restart()
                assert post(client, {"text": "a"}).status_code == 202


def test_a_redis_that_hangs_holds_nobody_up(tmp_path: Path) -> None:
    with local_redis(tmp_path) as own:
        with local_web(tmp_path, {"EMBED_BROKER_URL": own.url}) as web:
            own.program.send(signal.SIGSTOP)
            try:
                with httpx.Client(base_url=web.url, timeout=PATIENCE_S) as client:
                    with ThreadPoolExecutor(40) as many:
                        answers = list(many.map(lambda _: post(client, {"text": "a"}), range(80)))
                    assert {answer.status_code for answer in answers} == {503}
                    assert client.get("/livez").status_code == 200
            finally:
                own.program.send(signal.SIGCONT)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("EMBED_QUEU_LIMIT", "5", "did you mean EMBED_QUEUE_LIMIT?"),
        ("EMBED_QUEUE_LIMIT", "many", "EMBED_QUEUE_LIMIT='many'"),
        ("EMBED_BROKER_URL", "http://x", "EMBED_BROKER_URL"),
    ],
)
def test_wrong_settings_stop_the_start(tmp_path: Path, name: str, value: str, said: str) -> None:
    argv = [sys.executable, "-m", "uvicorn", "webapp.main:app", "--port", "0"]
    program = Program(argv, log=tmp_path / "web.log", env={name: value})
    assert program.wait() != 0
    assert said in program.output()
    assert "Traceback" not in program.output()
