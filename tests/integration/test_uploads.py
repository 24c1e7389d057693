"""Lines of JSON to `POST /embed`: slowed by a full queue, cut off and resumed, each line once."""

import random
import select
import signal
import socket
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import httpx
import orjson
import pytest

from tasks.ledger import JOBS, OUTSTANDING, TOTALS, Ledger, run
from tasks.settings import Settings
from tests.processes import free_port, wait_until
from tests.redis_server import RedisServer
from tests.web_server import WebServer, local_web

LIMIT = 400
BATCH = LIMIT // 4
UPLOADS = 2
TYPE = "application/x-ndjson"


@pytest.fixture(scope="module")
def web(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    env = {
        "EMBED_BROKER_URL": redis_server.url,
        "EMBED_MODEL": "fake",
        "EMBED_QUEUE_LIMIT": str(LIMIT),
        "EMBED_MAX_UPLOADS": str(UPLOADS),
        "EMBED_STALL_S": "1",
    }
    with local_web(tmp_path_factory.mktemp("web"), env) as server:
        yield server


def lines(count: int) -> list[bytes]:
    return [orjson.dumps({"id": str(n), "text": f"text {n}"}) + b"\n" for n in range(1, count + 1)]


def upload(
    client: httpx.Client, body: bytes | Iterable[bytes], key: str | None = None, **query: Any
) -> httpx.Response:
    headers = {"Content-Type": TYPE} | ({"Idempotency-Key": key} if key else {})
    return client.post("/embed", content=body, headers=headers, params=query, timeout=30)


def count(broker: RedisServer, key: str, name: str) -> int:
    found: Any = broker.client.hget(key, name)
    return int(found or 0)


def accepted(broker: RedisServer) -> int:
    return count(broker, TOTALS, "accepted")


class Drain:
    """What workers would do: settles open jobs, and sees how much is outstanding."""

    def __init__(self, broker: RedisServer, settings: Settings) -> None:
        self.most_outstanding = 0
        self._client, self._ledger, self._broker = broker.client, Ledger(settings), broker

    def turn(self, enough: int = 0) -> bool:
        """Whether so many were accepted."""
        texts = count(self._broker, OUTSTANDING, "texts")
        self.most_outstanding = max(self.most_outstanding, texts)
        oldest: Any = self._client.zrange(JOBS, 0, 0)
        for job_id in oldest:
            run(self._client, self._ledger.cancel(job_id.decode()))
        return accepted(self._broker) >= enough


@pytest.fixture
def drain(broker: RedisServer, settings: Settings) -> Drain:
    return Drain(broker, settings)


def test_lines_become_jobs_of_the_collection_that_the_query_names(client: httpx.Client) -> None:
    body = b"\xef\xbb\xbf" + b"\r\n".join(line.strip() for line in lines(250)) + b"\n\n"
    response = upload(client, body, collection="named", on_long="error")
    assert response.status_code == 202, response.text
    answer = response.json()
    assert (answer["accepted"], answer["accepted_before"]) == (250, 0)
    assert (answer["next_line"], answer["jobs"]) == (252, 3)
    jobs = [client.get(f"/jobs/{job_id}").json() for job_id in answer["job_ids"]]
    assert [job["accepted"] for job in jobs] == [BATCH, BATCH, 50]
    assert {job["collection"] for job in jobs} == {"named"}


def test_a_bad_line_is_named_and_what_stands_before_it_is_accepted(client: httpx.Client) -> None:
    body = [*lines(120), b'{"text": ""}\n', *lines(100_000)]
    response = upload(client, b"".join(body), from_line=1001)
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert (response.status_code, problem["code"]) == (422, "text_empty")
    assert (problem["line"], problem["detail"]) == (1121, "line 1121: the text is empty")
    assert (problem["upload"]["accepted"], problem["upload"]["next_line"]) == (120, 1121)
    assert client.get("/queue").json()["outstanding"] == 120  # over the same connection


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"colection": "c"}, "parameter_unknown"),
        ({"collection": "../c"}, "collection_invalid"),
        ({"on_long": "x"}, "on_long_invalid"),
        ({"from_line": "0"}, "from_line_invalid"),
        ({"from_line": "1.5"}, "from_line_invalid"),
    ],
)
@pytest.mark.parametrize("media_type", [TYPE, "application/json"])
def test_a_bad_parameter_is_refused(
    query: dict[str, str], code: str, media_type: str, client: httpx.Client
) -> None:
    headers = {"Content-Type": media_type}
    response = client.post("/embed", content=b'{"text": "a"}', headers=headers, params=query)
    assert (response.status_code, response.json()["code"]) == (422, code)


def test_a_body_of_json_may_have_its_options_in_the_query(client: httpx.Client) -> None:
    for body, collection in (({}, "query"), ({"collection": "body"}, "body")):
        content = orjson.dumps({"text": "a"} | body)
        response = client.post("/embed", content=content, params={"collection": "query"})
        assert client.get(response.headers["location"]).json()["collection"] == collection


def test_a_full_queue_slows_it_and_is_never_more_than_full(
    client: httpx.Client, broker: RedisServer, drain: Drain
) -> None:
    with ThreadPoolExecutor(1) as pool:
        response = pool.submit(upload, client, b"".join(lines(20 * LIMIT)))
        wait_until(lambda: count(broker, OUTSTANDING, "texts") == LIMIT, "the queue is full")
        assert accepted(broker) == LIMIT
        while not response.done():
            drain.turn()
    assert response.result().status_code == 202, response.result().text
    assert response.result().json()["accepted"] == accepted(broker) == 20 * LIMIT
    assert drain.most_outstanding <= LIMIT
    assert count(broker, TOTALS, "refused") == 0


def test_a_queue_that_does_not_move_ends_it_with_a_word_where_to_go_on(
    client: httpx.Client, broker: RedisServer
) -> None:
    response = upload(client, b"".join(lines(2 * LIMIT)))
    problem = response.json()
    assert (response.status_code, problem["code"]) == (429, "queue_full")
    assert response.headers["retry-after"] == "30"
    assert (problem["upload"]["accepted"], problem["upload"]["next_line"]) == (LIMIT, LIMIT + 1)


class Connection:
    """A client that vanishes in the middle of its body, at the end of the block."""

    def __init__(self, web: WebServer, key: str | None = None) -> None:
        self._socket = socket.create_connection(("127.0.0.1", web.port))
        head = f"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: {TYPE}\r\n"
        head += f"Idempotency-Key: {key}\r\n" if key else ""
        self._socket.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, body: bytes) -> None:
        self._socket.sendall(b"%x\r\n%b\r\n" % (len(body), body))

    def answer(self) -> bytes:
        """What comes until the server hangs up."""
        self._socket.settimeout(30)
        return b"".join(iter(lambda: self._socket.recv(65536), b""))

    def answered(self) -> bool:
        return bool(select.select([self._socket], [], [], 0)[0])


def test_cut_off_at_random_and_sent_again_each_document_is_accepted_once(
    client: httpx.Client, web: WebServer, broker: RedisServer, drain: Drain
) -> None:
    body, chance = lines(2000), random.Random(7)
    for cut in sorted(chance.sample(range(1, 2000), 8)):
        with Connection(web, "k") as connection:
            connection.send(b"".join(body[:cut]) + body[cut][:9])
            most = (cut // BATCH) * BATCH
            # a refusal: the end of the last connection has not been seen yet
            wait_until(lambda: drain.turn(most) or connection.answered(), "it came far")  # noqa: B023
    while (response := _send_again(client, b"".join(body), drain)).status_code != 202:
        assert response.json()["code"] in {"upload_moved", "too_many_uploads"}
    answer = response.json()
    assert answer["accepted"] + answer["accepted_before"] == 2000
    assert answer["next_line"] == 2001
    assert accepted(broker) == 2000
    again = upload(client, b"".join(body), "k").json()
    assert (again["accepted"], again["accepted_before"], again["jobs"]) == (0, 2000, 0)
    assert accepted(broker) == 2000


def _send_again(client: httpx.Client, body: bytes, drain: Drain) -> httpx.Response:
    with ThreadPoolExecutor(1) as pool:
        response = pool.submit(upload, client, body, "k")
        while not response.done():
            drain.turn()
    return response.result()


def test_an_empty_body_asks_where_to_go_on(client: httpx.Client, broker: RedisServer) -> None:
    assert upload(client, b"", "k").json()["next_line"] == 1
    body = lines(150)
    assert upload(client, b"".join(body[:120]), "k").status_code == 202
    assert upload(client, b"", "k").json()["next_line"] == 121
    rest = upload(client, b"".join(body[120:]), "k", from_line=121).json()
    assert (rest["accepted"], rest["accepted_before"]) == (30, 120)
    other = upload(client, b"".join(body[130:]), "k", from_line=131)
    assert (other.status_code, other.json()["code"]) == (422, "from_line_invalid")
    changed = upload(client, b"".join(reversed(body)), "k")
    assert (changed.status_code, changed.json()["code"]) == (422, "idempotency_key_reused")
    assert accepted(broker) == 150


def test_two_with_one_key_accept_each_line_once(client: httpx.Client, broker: RedisServer) -> None:
    body = b"".join(lines(LIMIT))
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: upload(client, body, "k"), range(2)))
    assert {answer.status_code for answer in answers} <= {202, 409}
    assert upload(client, body, "k").json()["next_line"] == LIMIT + 1
    assert accepted(broker) == LIMIT


def test_only_a_few_run_at_once(client: httpx.Client, web: WebServer, broker: RedisServer) -> None:
    with Connection(web) as first, Connection(web) as second:
        for connection in (first, second):
            connection.send(b"".join(lines(BATCH + 1)))
        wait_until(lambda: accepted(broker) == UPLOADS * BATCH, "all have begun")
        refused = upload(client, b"".join(lines(1)))
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_uploads")
        assert refused.headers["retry-after"] == "5"
    wait_until(lambda: upload(client, b"").status_code == 202, "a place is free")
    assert accepted(broker) == UPLOADS * BATCH  # and not the last line, which had no end


@pytest.mark.parametrize("full", [False, True], ids=["more is awaited", "room is awaited"])
def test_a_web_that_is_told_to_end_ends_uploads(
    broker: RedisServer, tmp_path: Path, full: bool
) -> None:
    limit = BATCH if full else LIMIT
    env = {"EMBED_BROKER_URL": broker.url, "EMBED_MODEL": "fake", "EMBED_QUEUE_LIMIT": str(limit)}
    with local_web(tmp_path, env) as web, Connection(web) as connection:
        connection.send(b"".join(lines(BATCH + 1)))
        wait_until(lambda: accepted(broker) == BATCH, "a batch is accepted")
        web.program.popen.terminate()
        answer = connection.answer()
    assert answer.startswith(b"HTTP/1.1 503 "), answer
    assert f"go on at line {BATCH + 1}".encode() in answer
    assert web.program.wait(30) in {0, -signal.SIGTERM}


def test_without_redis_it_is_said_where_to_go_on(tmp_path: Path) -> None:
    env = {"EMBED_BROKER_URL": f"redis://127.0.0.1:{free_port()}/0", "EMBED_MODEL": "fake"}
    with local_web(tmp_path, env) as web, httpx.Client(base_url=web.url) as client:
        response = upload(client, b"".join(lines(3)))
    assert (response.status_code, response.json()["code"]) == (503, "broker_down")
    assert response.json()["detail"] == "the queue cannot be reached: go on at line 1"
