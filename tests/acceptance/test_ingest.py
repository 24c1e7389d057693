"""`embedmill ingest`, `job`, `dead`, `search` and `doctor` on real processes with a small queue."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from qdrant_client import models
from redis import Redis

from tasks.ledger import DEAD, DEAD_BYTES
from tasks.presence import COLLECTIONS
from tests.processes import Program, wait_until
from tests.qdrant_server import LocalQdrant
from tests.redis_server import local_redis
from tests.web_server import WebServer, local_web
from tests.worker import local_worker

EMBEDMILL = str(Path(sys.executable).parent / "embedmill")
LIMIT = 150
TEXT_MS = 2


@dataclass(frozen=True)
class Mill:
    """A web, a worker and their servers, and a way to call commands on them."""

    env: dict[str, str]
    web: WebServer
    qdrant: LocalQdrant
    folder: Path

    def call(self, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [EMBEDMILL, *arguments],
            env={**self.env, **env},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def ingest(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return self.call("ingest", "--url", self.web.url, *arguments)

    def ingesting(self, *arguments: str) -> Program:
        argv = [EMBEDMILL, "ingest", "--url", self.web.url, *arguments]
        return Program(argv, log=self.folder / "ingest.log", env=self.env, cwd=self.folder)

    def total(self, name: str) -> int:
        """A counter of all time, as the metrics show it."""
        metrics = httpx.get(f"{self.web.url}/metrics").text
        found = re.search(rf"^embedmill_{name}_total (\S+)$", metrics, re.MULTILINE)
        assert found, metrics
        return round(float(found[1]))

    def embed(self, **document: str) -> dict[str, Any]:
        """The job of one document, settled."""
        answer = httpx.post(f"{self.web.url}/embed", json=document).json()
        return self.follow(answer["job_id"])

    def follow(self, job_id: str) -> dict[str, Any]:
        self.settle()
        job: dict[str, Any] = httpx.get(f"{self.web.url}/jobs/{job_id}").json()
        return job

    def replay_all(self) -> dict[str, Any]:
        """The job of the only dead letter, settled."""
        replayed = self.call("dead", "replay", "--url", self.web.url, "--all", "--json")
        assert (replayed.returncode, replayed.stderr) == (0, "")
        answer = json.loads(replayed.stdout)
        assert (answer["replayed"], answer["refused"]) == (1, [])
        return self.follow(answer["jobs"][0]["job_id"])

    def settle(self) -> None:
        url = f"{self.web.url}/queue"
        wait_until(lambda: not httpx.get(url).json()["outstanding"], "all is settled")

    def payloads(self, collection: str) -> list[dict[str, Any]]:
        with self.qdrant.connect() as client:
            if not client.collection_exists(collection):
                return []
            points, _ = client.scroll(collection, limit=10_000)
        return [point.payload or {} for point in points]

    def write(self, name: str, rows: Sequence[object]) -> str:
        (self.folder / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return name


@pytest.fixture(scope="module")
def servers(
    qdrant: LocalQdrant, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[dict[str, str], WebServer]]:
    folder = tmp_path_factory.mktemp("mill")
    with local_redis(folder) as redis:
        env = {
            "EMBED_BROKER_URL": redis.url,
            "EMBED_QDRANT_URL": qdrant.url,
            "EMBED_MODEL": "fake",
            "EMBED_FAKE_TEXT_MS": str(TEXT_MS),
            "EMBED_QUEUE_LIMIT": str(LIMIT),
        }
        with local_worker(folder, env) as _, local_web(folder, env) as web:
            yield env, web


@pytest.fixture
def mill(
    servers: tuple[dict[str, str], WebServer], qdrant: LocalQdrant, tmp_path: Path
) -> Iterator[Mill]:
    env, web = servers
    mill = Mill(env | {"EMBED_CACHE_DIR": str(tmp_path / "cache")}, web, qdrant, tmp_path)
    yield mill
    mill.settle()


def test_more_than_the_queue_holds_goes_through_it(mill: Mill) -> None:
    refused = mill.total("refused_texts")
    rows: list[dict[str, Any]] = [
        {"id": str(n), "text": f"text {n}", "metadata": {"n": n}} for n in range(3 * LIMIT)
    ]
    done = mill.ingest(mill.write("a.jsonl", rows), "--collection", "through")
    assert done.returncode == 0, done.stderr
    assert "accepted 450, done 450, failed 0, points written 450: " in done.stdout
    assert mill.total("refused_texts") > refused  # 429 was answered, and waited out
    assert {
        (p["document_id"], p["text"], p["metadata"]["n"]) for p in mill.payloads("through")
    } == {(row["id"], row["text"], row["metadata"]["n"]) for row in rows}


def test_a_request_that_is_too_large_is_sent_in_parts(mill: Mill) -> None:
    rows = [{"text": f"part {n}"} for n in range(2 * LIMIT)]
    done = mill.ingest(mill.write("a.jsonl", rows), "--collection", "parts", "--batch", "4096")
    assert done.returncode == 0, done.stderr
    assert len(mill.payloads("parts")) == 2 * LIMIT


def test_the_last_text_of_an_id_wins(mill: Mill) -> None:
    rows = [{"id": str(n % 3), "text": f"version {n}"} for n in range(60)]
    done = mill.ingest(mill.write("a.jsonl", rows), "--collection", "versions")
    assert done.returncode == 0, done.stderr
    found = {payload["document_id"]: payload["text"] for payload in mill.payloads("versions")}
    assert found == {"0": "version 57", "1": "version 58", "2": "version 59"}


@pytest.mark.parametrize(
    ("bad", "said"), [({"text": ""}, "the text is empty"), (["text"], "a line is an object")]
)
def test_a_bad_line_stops_it_and_is_named(bad: object, said: str, mill: Mill) -> None:
    rows: list[object] = [{"text": f"fine {n}"} for n in range(10)]
    name = mill.write("a.jsonl", [*rows[:6], bad, *rows[6:]])
    collection = f"bad-{type(bad).__name__}"
    done = mill.ingest(name, "--collection", collection, "--batch", "2")
    assert done.returncode == 1
    assert f"a.jsonl:7: {said}" in done.stderr
    assert "Traceback" not in done.stderr
    found = re.search(r"left to the workers: (\d) texts", done.stderr)
    mill.settle()
    stored = {payload["text"] for payload in mill.payloads(collection)}
    assert len(stored) == (int(found[1]) if found else 0)
    assert "fine 6" not in stored  # of the same request


def test_failed_documents_are_listed_by_line(mill: Mill) -> None:
    (mill.folder / "a.txt").write_text(f"short\n\n{'long ' * 400}\n")
    done = mill.ingest("a.txt", "--collection", "long", "--on-long", "error")
    assert done.returncode == 1
    assert "accepted 2, done 1, failed 1" in done.stdout
    assert "  a.txt:3: the text has 400 tokens" in done.stdout


def test_a_web_that_is_killed_and_comes_back_is_waited_for(
    mill: Mill, servers: tuple[dict[str, str], WebServer], tmp_path: Path
) -> None:
    with local_web(tmp_path, mill.env) as web:
        before = mill.total("accepted_texts")
        name = mill.write("a.jsonl", [{"text": f"again {n}"} for n in range(4 * LIMIT)])
        program = Program(
            [EMBEDMILL, "ingest", "--url", web.url, "--collection", "again", name],
            log=tmp_path / "ingest.log",
            env=mill.env,
            cwd=tmp_path,
        )
        program.wait_until(lambda: mill.total("accepted_texts") > before, "some are accepted")
        web.program.kill()
        program.wait_until(lambda: "trying again" in program.output(), "it has been noticed")
        web.program.restart()
        assert program.wait(60) == 0, program.output()
    assert len(mill.payloads("again")) == 4 * LIMIT


def test_ctrl_c_says_what_was_accepted_and_job_follows_and_cancels_it(mill: Mill) -> None:
    before = mill.total("accepted_texts")
    name = mill.write("a.jsonl", [{"text": f"stop {n}"} for n in range(100 * LIMIT)])
    program = mill.ingesting(name, "--collection", "stop")
    program.wait_until(lambda: mill.total("accepted_texts") > before, "some are accepted")
    program.send(signal.SIGINT)
    assert program.wait() == 130
    found = re.search(r"workers: ([\d,]+) texts.*\n.*embedmill job (\S+) --watch", program.output())
    assert found, program.output()
    accepted = mill.total("accepted_texts") - before
    assert int(found[1].replace(",", "")) == accepted
    shown = mill.call("job", found[2], "--url", mill.web.url, "--cancel", "--watch")
    assert shown.returncode == 0
    assert re.search(rf"job +{found[2]}", shown.stdout)
    assert re.search(r"state +(done|cancelled)", shown.stdout)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_goes_on_and_accepts_each_document_once(
    number: signal.Signals, mill: Mill
) -> None:
    before, collection = mill.total("accepted_texts"), f"resumed-{number.name}"
    rows = [{"id": str(n), "text": f"{collection} {n}"} for n in range(6 * LIMIT)]
    arguments = [mill.write("a.jsonl", rows), "--collection", collection, "--resume"]
    program = mill.ingesting(*arguments)
    journals = mill.folder / "cache" / "ingests"
    program.wait_until(lambda: list(journals.glob("*.json")), "it has been noted how far it is")
    program.send(number)
    program.wait()
    assert "there is nothing to go on with" in program.output()
    done = mill.ingest(*arguments)
    assert done.returncode == 0, done.stderr
    found = re.search(r"going on after (\d+) texts", done.stderr)
    assert found, done.stderr
    assert f"sent before {found[1]}, accepted {6 * LIMIT - int(found[1])}, " in done.stdout
    assert mill.total("accepted_texts") - before == 6 * LIMIT
    assert len(mill.payloads(collection)) == 6 * LIMIT
    assert not list(journals.iterdir())


def test_standard_input_cannot_be_resumed(mill: Mill) -> None:
    done = mill.ingest("-", "--resume")
    assert (done.returncode, done.stdout) == (1, "")
    assert "what comes from a pipe cannot be read again" in done.stderr


def test_an_unknown_job_is_one_sentence(mill: Mill) -> None:
    done = mill.call("job", "no-such", "--url", mill.web.url)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: there is no job 'no-such'")
    assert done.stderr.count("\n") == 1


def test_without_a_web_it_says_what_to_do(mill: Mill) -> None:
    (mill.folder / "a.txt").write_text("text")
    done = mill.call("ingest", "--url", "http://127.0.0.1:1", "a.txt")
    assert done.returncode == 1
    assert "start it with `embedmill up`" in done.stderr


def test_a_web_of_others_is_said_to_be_none_of_ours(mill: Mill) -> None:
    (mill.folder / "a.txt").write_text("text")
    done = mill.call("ingest", "--url", mill.qdrant.url, "a.txt")
    assert done.returncode == 1
    assert done.stderr == f"Error: {mill.qdrant.url} does not answer as Embedmill does\n"


def test_files_without_any_text_are_said_to_be_empty(mill: Mill) -> None:
    (mill.folder / "a.txt").write_text("\n\n")
    done = mill.ingest("a.txt")
    assert (done.returncode, done.stdout) == (
        0,
        "There is no text in a.txt: nothing was sent.\n",
    )


def test_search_finds_what_was_ingested(mill: Mill) -> None:
    mill.ingest(mill.write("a.jsonl", [{"id": str(n), "text": f"find {n}"} for n in range(9)]))
    done = mill.call("search", "find 7", "--limit", "2", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    best = answer["hits"][0]
    assert (best["document_id"], best["text"], len(answer["hits"])) == ("7", "find 7", 2)
    assert best["score"] == pytest.approx(1)
    assert answer["timings"].keys() == {"load_ms", "encode_ms", "search_ms"}
    assert "find 7" in mill.call("search", "find 7").stdout


def test_search_refuses_another_models_collection_and_an_absent_one(mill: Mill) -> None:
    mill.ingest(mill.write("a.jsonl", [{"text": "made by fake"}]), "--collection", "fakes")
    other = mill.call("search", "x", "--collection", "fakes", EMBED_FAKE_DIMENSION="8")
    assert other.returncode == 1
    assert "collection fakes was made by fake with 384 dimensions" in other.stderr
    absent = mill.call("search", "x", "--collection", "absent")
    assert absent.returncode == 1
    assert "there is no collection absent" in absent.stderr


def test_a_failed_document_is_listed_and_replayed_and_replaces_no_newer_text(mill: Mill) -> None:
    foreign = models.VectorParams(size=3, distance=models.Distance.COSINE)
    document = {"id": "d", "collection": "mended"}
    ledger: Redis = Redis.from_url(mill.env["EMBED_BROKER_URL"])
    with mill.qdrant.connect() as client, ledger:
        ledger.delete(DEAD, DEAD_BYTES)
        client.create_collection("mended", vectors_config=foreign)
        assert mill.embed(**document, text="older")["failed"] == 1
        client.delete_collection("mended")
        ledger.hdel(COLLECTIONS, "mended")
        listed = mill.call("dead", "list", "--url", mill.web.url, "--json")
        (row,) = json.loads(listed.stdout)["letters"]
        assert (row["document_id"], row["code"]) == ("d", "model_mismatch")
        assert "older" in mill.call("dead", "show", "--url", mill.web.url, row["id"]).stdout
        entries: Any = ledger.xrange(DEAD)
        assert mill.replay_all()["done"] == 1
        assert [payload["text"] for payload in mill.payloads("mended")] == ["older"]
        assert ledger.xlen(DEAD) == 0
        ledger.xadd(DEAD, entries[0][1])  # as if it had been kept until now
        assert mill.embed(**document, text="newer")["done"] == 1
        assert mill.replay_all()["done"] == 1
        assert [payload["text"] for payload in mill.payloads("mended")] == ["newer"]


def test_doctor_finds_a_working_mill_well(mill: Mill) -> None:
    mill.ingest(mill.write("a.jsonl", [{"text": "made by fake"}]))
    done = mill.call("doctor", "--url", mill.web.url)
    assert done.returncode == 0, done.stdout
    assert "problem" not in done.stdout.replace("Problems: 0", "")
    for line in ("2 of 2 children", "made by fake", "ready at"):
        assert line in done.stdout
