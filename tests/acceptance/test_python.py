"""The Python door, with a real worker: delay, get, chains, groups, foreign producers, submit."""

import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from celery import Celery, chain, chord, group

from tasks import embed
from tasks.client import Job, submit
from tasks.errors import DocumentsFailed, InvalidDocument, QueueFull
from tasks.messages import point_id, text_id
from tasks.results import SplitResult
from tasks.settings import get_settings
from tasks.snapshot import JobSnapshot
from tests.acceptance.chaos.books import BOUNDED
from tests.processes import Program, free_port, wait_until
from tests.qdrant_server import LocalQdrant
from tests.redis_server import RedisServer
from tests.worker import Worker

TIMEOUT_S = 60
LONG = "word " * 300


def stored(qdrant: LocalQdrant, text: str, collection: str = "documents") -> dict[str, Any]:
    point = point_id(collection, text_id(text), 0)
    answer = httpx.get(f"{qdrant.url}/collections/{collection}/points/{point}")
    payload: dict[str, Any] = answer.raise_for_status().json()["result"]["payload"]
    return payload


def test_a_delayed_text_is_stored(worker: Worker, qdrant: LocalQdrant) -> None:
    result = embed.delay("hello world")
    summary = result.get(timeout=TIMEOUT_S)
    assert (summary["job_id"], summary["done"], summary["points"]) == (result.id, 1, 1)
    payload = stored(qdrant, "hello world")
    assert payload["sequence"] > 0
    assert len(payload["fingerprint"]) == 32
    assert payload | {"sequence": 0, "fingerprint": ""} == {
        "text": "hello world",
        "document_id": text_id("hello world"),
        "chunk": 0,
        "chunks": 1,
        "model": "fake",
        "sequence": 0,
        "metadata": None,
        "fingerprint": "",
    }


def test_many_documents_are_one_result_over_all(worker: Worker) -> None:
    result: Any = embed.delay([f"text {n}" for n in range(200)], collection="many")
    assert isinstance(result, SplitResult)
    assert len(result.results or []) == 4
    summary = result.get(timeout=TIMEOUT_S)
    assert (summary["done"], summary["points"]) == (200, 200)


def test_get_lists_what_failed_and_raises_only_if_all_did(worker: Worker) -> None:
    some = embed.delay(["short", LONG], on_long="error").get(timeout=TIMEOUT_S)
    assert (some["done"], some["failed"]) == (1, 1)
    (failure,) = some["errors"]
    assert (failure["index"], failure["code"]) == (1, "text_too_long")
    with pytest.raises(DocumentsFailed, match="text_too_long"):
        embed.delay(LONG, on_long="error").get(timeout=TIMEOUT_S)


def test_a_split_job_raises_only_if_all_failed(worker: Worker) -> None:
    mixed = embed.delay([*(f"m{n}" for n in range(64)), LONG], on_long="error")
    assert mixed.get(timeout=TIMEOUT_S)["failed"] == 1
    long_texts = [f"{LONG} {n}" for n in range(65)]
    with pytest.raises(DocumentsFailed):
        embed.delay(long_texts, on_long="error").get(timeout=TIMEOUT_S)


def test_groups_and_chains_are_ordinary_celery(worker: Worker, qdrant: LocalQdrant) -> None:
    many = group(embed.s(f"group {n}") for n in range(5)).apply_async()
    assert [one["done"] for one in many.get(timeout=TIMEOUT_S)] == [1] * 5
    linked = chain(embed.si("first"), embed.si(["second", "third"], collection="chained"))
    assert linked.apply_async().get(timeout=TIMEOUT_S)["done"] == 2
    assert stored(qdrant, "second", "chained")["text"] == "second"
    joined = chord([embed.s("x"), embed.s([f"y{n}" for n in range(100)])], embed.si("body"))
    assert joined.apply_async().get(timeout=TIMEOUT_S)["done"] == 1


def test_a_chain_into_embed_carries_the_texts(worker: Worker, qdrant: LocalQdrant) -> None:
    extract = embed.si("a page")
    extract.link(embed.si("linked from a page"))
    extract.apply_async().get(timeout=TIMEOUT_S)
    wait_until(lambda: _is_stored(qdrant, "linked from a page"), "the link has run")


def _is_stored(qdrant: LocalQdrant, text: str) -> bool:
    try:
        return bool(stored(qdrant, text))
    except httpx.HTTPStatusError:
        return False


def test_invalid_documents_raise_where_they_are_sent(worker: Worker) -> None:
    with pytest.raises(InvalidDocument) as refused:
        embed.delay(["fine", ""])
    assert (refused.value.index, refused.value.code) == (1, "text_empty")


def test_a_foreign_producer_is_adopted_and_counted(
    worker: Worker, redis_server: RedisServer, qdrant: LocalQdrant
) -> None:
    foreign = Celery(broker=redis_server.url, backend=redis_server.url, set_as_current=False)
    foreign.conf.broker_transport_options = {"priority_steps": [0]}
    before = submit("a mark").wait(TIMEOUT_S)
    result = foreign.send_task("tasks.embed", [["from afar", "twice"]], queue="embed")
    assert result.get(timeout=TIMEOUT_S)["done"] == 2
    assert stored(qdrant, "from afar")["sequence"] > 0
    job = Job(result.id, ()).progress()
    assert (job.state, job.accepted, job.done) == ("done", 2, 2)
    assert before.state == "done"


def test_a_foreign_message_that_makes_no_sense_fails_alone(
    worker: Worker, redis_server: RedisServer
) -> None:
    foreign = Celery(broker=redis_server.url, backend=redis_server.url, set_as_current=False)
    foreign.conf.broker_transport_options = {"priority_steps": [0]}
    result = foreign.send_task("tasks.embed", [{"nonsense": 1}], queue="embed")
    with pytest.raises(Exception, match="nonsense"):
        result.get(timeout=TIMEOUT_S)


def test_submit_follows_its_job(worker: Worker, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[JobSnapshot] = []
    job = submit([{"id": str(n), "text": f"submitted {n}"} for n in range(150)])
    assert job.document_ids[:2] == ("0", "1")
    settled = job.wait(TIMEOUT_S, progress=True, on_progress=seen.append)
    assert (settled.state, settled.done, settled.eta_s) == ("done", 150, 0.0)
    assert seen[-1] == settled
    assert "150 of 150 texts" in capsys.readouterr().err


def test_a_full_queue_is_said_to_python_programs(
    broker: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = get_settings().model_copy(update={"queue_limit": 2})
    monkeypatch.setattr("tasks.admission.get_settings", lambda: small)
    from tasks import admission

    admission.ledger.cache_clear()
    try:
        embed.delay(["a", "b"])
        with pytest.raises(QueueFull):
            embed.delay("c")
        with pytest.raises(QueueFull):
            submit("c")
    finally:
        admission.ledger.cache_clear()


@pytest.mark.parametrize("call", ["tasks.embed.delay('a')", "tasks.client.submit('a')"])
def test_a_redis_that_is_down_is_said_to_python_programs(tmp_path: Path, call: str) -> None:
    argv = [sys.executable, "-c", f"import tasks.client; {call}"]
    env = {"EMBED_BROKER_URL": f"redis://127.0.0.1:{free_port()}/0"}
    program = Program(argv, log=tmp_path / "log", env=env)
    assert program.wait(15) == 1
    assert program.output().splitlines()[-1].startswith("tasks.errors.BrokerDown: Redis at redis:")


def test_nothing_is_left_in_redis_without_a_bound(worker: Worker, broker: RedisServer) -> None:
    submit(["a", "b"]).wait(TIMEOUT_S)
    submit(LONG, on_long="error").wait(TIMEOUT_S)
    client = broker.client
    fixed = {f"embedmill:{name}".encode() for name in BOUNDED}
    endless = {
        key for key in client.keys("embedmill:*") if client.ttl(key) == -1 and key not in fixed
    }
    assert endless == set()
    wait_until(lambda: client.hlen("unacked") == 0, "all messages are acknowledged")
