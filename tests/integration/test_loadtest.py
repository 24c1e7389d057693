"""`embedmill loadtest` as a process, against a real web; nothing works on what it accepts."""

import json
import signal
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tasks.presence import record_collection
from tests.processes import Program
from tests.redis_server import RedisServer
from tests.web_server import WebServer, local_web

EMBEDMILL = str(Path(sys.executable).parent / "embedmill")
LIMIT = 300


@pytest.fixture(scope="module")
def web(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    env = {"EMBED_BROKER_URL": redis_server.url, "EMBED_QUEUE_LIMIT": str(LIMIT)}
    with local_web(tmp_path_factory.mktemp("web"), env) as server:
        yield server


@pytest.fixture
def start(web: WebServer, broker: RedisServer, tmp_path: Path) -> Iterator[Any]:
    programs: list[Program] = []

    def start_one(*options: str, url: str = web.url) -> Program:
        argv = [EMBEDMILL, "loadtest", "--url", url, *options]
        programs.append(Program(argv, log=tmp_path / f"{len(programs)}.log"))
        return programs[-1]

    yield start_one
    for program in programs:
        program.stop()


def result(program: Program) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(program.output().splitlines()[-1])
    return found


def test_an_open_loop_sends_what_is_due_and_the_ledger_has_it(
    start: Any, client: httpx.Client
) -> None:
    program = start("--rate", "50", "--arrivals", "constant", "--duration", "1", "--json")
    assert program.wait() == 0, program.output()
    row = result(program)
    assert (row["answered"], row["errors"], row["refused"], row["unsent"]) == (50, {}, 0, 0)
    assert 0 < row["latency_ms"]["answer"]["p50"] <= row["latency_ms"]["answer"]["max"]
    assert client.get("/queue").json()["outstanding"] == 51  # one to see that it works at all


def test_clients_that_are_refused_come_back_when_they_were_told_to(
    start: Any, client: httpx.Client
) -> None:
    program = start("--clients", "2", "--texts", "40", "--duration", "2", "--json")
    assert program.wait() == 0, program.output()
    row = result(program)
    # nothing drains, so they are told to come in 30 s: after the end
    assert (row["answered"], row["refused"], row["given_up"]) == (6, 2, 2)
    assert client.get("/queue").json()["outstanding"] == 280


def test_an_interruption_ends_it_with_what_it_has(start: Any, client: httpx.Client) -> None:
    program = start("--rate", "20", "--duration", "600")
    program.wait_until(
        lambda: client.get("/queue").json()["outstanding"] > 10, "it has sent some requests"
    )
    program.send(signal.SIGINT)
    assert program.wait() == 0, program.output()
    assert "requests answered in" in program.output()
    assert "p99" in program.output()


def test_what_is_wrong_with_every_request_is_said_at_once(start: Any, broker: RedisServer) -> None:
    record_collection(broker.client, "loadtest", "another-model", 3)
    program = start("--duration", "600")
    assert program.wait() == 1
    assert "another-model" in program.output()


def test_a_web_that_is_not_there_is_said_at_once(start: Any) -> None:
    program = start(url="http://127.0.0.1:1")
    assert program.wait() == 1
    assert "no web answers at http://127.0.0.1:1" in program.output()


class Stranger(BaseHTTPRequestHandler):
    """A server that is content with everything."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"<html>")

    def log_message(self, *_: object) -> None:
        return None


def test_another_server_is_no_web(start: Any) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Stranger) as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        program = start(url=f"http://127.0.0.1:{other.server_port}")
        status = program.wait()
        other.shutdown()
        thread.join()
    assert status == 1
    assert "does not answer as Embedmill does" in program.output()
