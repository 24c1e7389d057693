"""Workers of other kinds and in trouble; each test has the queue, and its worker, to itself."""

import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from celery import Celery

from tasks import app, embed
from tasks.client import Job, submit
from tasks.errors import BrokerDown
from tasks.letters import read_letters
from tasks.messages import point_id, text_id
from tasks.roster import read_number
from tasks.settings import get_settings
from tasks.snapshot import read_queue
from tasks.submission import envelope
from tests.processes import Program, wait_until
from tests.qdrant_server import LocalQdrant
from tests.redis_server import RedisServer
from tests.worker import local_worker
from workers.fake import FakeEncoder
from workers.process import close_resources

TIMEOUT_S = 60
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_other_pools_work_one_by_one(
    pool: str, broker: RedisServer, stack_env: dict[str, str], tmp_path: Any
) -> None:

    argv = [sys.executable, "-m", "celery", "-A", "workers", "worker", "-P", pool, "-c", "2"]
    program = Program([*argv, "-n", f"{pool}@localhost"], log=tmp_path / "log", env=stack_env)
    try:
        results = [embed.delay(f"{pool} {n}") for n in range(10)]
        assert [result.get(timeout=TIMEOUT_S)["done"] for result in results] == [1] * 10
    finally:
        program.stop()


def test_recycled_children_lose_nothing(
    broker: RedisServer, stack_env: dict[str, str], tmp_path: Path
) -> None:
    options = ["--max-tasks-per-child", "3"]
    with local_worker(tmp_path, stack_env, name="recycling", options=options):
        results = [embed.delay(f"recycled {n}") for n in range(150)]
        assert [result.get(timeout=TIMEOUT_S)["done"] for result in results] == [1] * 150
    assert read_queue(broker.client, get_settings()).outstanding == 0


@pytest.mark.parametrize("foreign", [False, True], ids=["ours", "foreign"])
def test_what_kills_its_process_is_buried_after_so_many_losses(
    broker: RedisServer, stack_env: dict[str, str], tmp_path: Path, foreign: bool
) -> None:
    texts = [f"innocent {n}" for n in range(5)] + [FakeEncoder.POISON]
    with local_worker(tmp_path, stack_env | {"EMBED_FAKE_POISON": "true"}, name="poisoned") as own:
        if foreign:
            stranger = Celery(broker=broker.url, backend=broker.url, set_as_current=False)
            stranger.conf.broker_transport_options = {"priority_steps": [0]}
            result = stranger.send_task("tasks.embed", [texts], queue="embed")
        else:
            result = embed.delay(texts)
        summary = result.get(timeout=TIMEOUT_S)
        assert (summary["done"], summary["failed"]) == (5, 1)
        losses = get_settings().poison_losses
        (letter,) = read_letters(broker.client, get_settings())
        assert (letter.text, letter.code) == (FakeEncoder.POISON, "process_killed")
        assert letter.attempts == losses
        # the first loss makes it a suspect; from then on it is alone
        assert own.program.output().count("comes back") == losses + 1


def test_a_message_that_comes_back_after_its_end_is_done_without_work(
    broker: RedisServer,
    qdrant: LocalQdrant,
    stack_env: dict[str, str],
    tmp_path: Path,
) -> None:
    job = submit("only once")
    (message,) = broker.client.lrange("embed", 0, -1)
    with local_worker(tmp_path, stack_env):
        job.wait(TIMEOUT_S)
        points = f"{qdrant.url}/collections/documents/points"
        selected = {"points": [point_id("documents", text_id("only once"), 0)]}
        httpx.post(f"{points}/delete?wait=true", json=selected).raise_for_status()
        broker.client.lpush("embed", message)
        after = submit("a mark behind it")
        after.wait(TIMEOUT_S)
        wait_until(lambda: broker.client.hlen("unacked") == 0, "both are acknowledged")
    answer = httpx.post(points, json={"ids": selected["points"]})
    assert answer.json()["result"] == []
    assert (job.progress().done, job.progress().points) == (1, 1)


@pytest.mark.parametrize(
    "body",
    [
        [{"documents": ["x"]}, {}, {}],
        [["x"], {"on_long": 7}, {}],
        [[5], {}, {}],
        ["not", "a triple"],
    ],
    ids=repr,
)
def test_foreign_nonsense_fails_alone(
    broker: RedisServer, stack_env: dict[str, str], tmp_path: Path, body: Any
) -> None:
    _publish(broker, {}, body)
    with local_worker(tmp_path, stack_env) as worker:
        submit("an innocent behind it").wait(TIMEOUT_S)
        wait_until(lambda: _is_empty(broker), "nothing is left")
        assert worker.program.running()
        assert worker.program.output().count("Connected to redis") == 1


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        ("not a place", [{"id": "1", "text": "x"}]),
        ({"v": 1, "job": "gone", "start": 0, "count": 10**9}, [{"id": "1", "text": "x"}]),
        ({"v": 1, "job": "gone", "start": 0, "count": 2}, [{"id": "1", "text": "x"}]),
    ],
    ids=str,
)
def test_a_message_of_ours_that_cannot_be_read_fails_alone(
    broker: RedisServer, stack_env: dict[str, str], tmp_path: Path, header: Any, rows: Any
) -> None:
    _publish(broker, {"embedmill": header}, [[rows], {}, {}])
    with local_worker(tmp_path, stack_env) as worker:
        submit("an innocent behind it").wait(TIMEOUT_S)
        wait_until(lambda: _is_empty(broker), "nothing is left")
        assert worker.program.output().count("comes back") == 0


def _publish(broker: RedisServer, headers: dict[str, Any], body: Any) -> None:
    message = app.amqp.create_task_message("odd", "tasks.embed", (), {})
    message.headers.update(headers)
    packed = envelope(message._replace(body=body), "embed")
    broker.client.lpush("embed", packed)


def _is_empty(broker: RedisServer) -> bool:
    return not broker.client.hlen("unacked") and not broker.client.llen("embed")


@pytest.mark.parametrize("how", ["time limit of the message", "solo"])
def test_poison_is_isolated_on_every_way(
    broker: RedisServer, stack_env: dict[str, str], tmp_path: Path, how: str
) -> None:
    env = stack_env | {"EMBED_FAKE_POISON": "true", "EMBED_VISIBILITY_TIMEOUT_S": "10"}
    options = ["-P", "solo"] if how == "solo" else []
    limit: dict[str, Any] = {} if how == "solo" else {"time_limit": 60}
    result = embed.apply_async(([FakeEncoder.POISON, "a neighbour"],), **limit)
    job = Job(str(result.id), ())
    for attempt in range(get_settings().poison_losses + 2):
        worker = local_worker(
            tmp_path, env, name=f"w{attempt}", options=options, concurrency=1, awaited=False
        )
        with worker as own:
            wait_until(
                lambda: job.progress().state != "open" or not own.program.running(),
                "it ends",
                timeout_s=TIMEOUT_S,
            )
        if job.progress().state != "open":
            break
    assert (job.progress().done, job.progress().failed) == (1, 1)


def test_a_hard_time_limit_fails_the_document(
    broker: RedisServer, stack_env: dict[str, str], tmp_path: Path
) -> None:
    with local_worker(tmp_path, stack_env | {"EMBED_FAKE_CALL_MS": "5000"}, options=["-l", "INFO"]):
        result = embed.apply_async(("too slow",), time_limit=1)
        job = Job(str(result.id), ()).wait(TIMEOUT_S)
    assert [error["code"] for error in job.errors] == ["time_limit"]
    (letter,) = read_letters(broker.client, get_settings())
    assert (letter.text, letter.code) == ("too slow", "time_limit")
    assert letter.sequence == read_number(broker.client, letter.job_id, 0, get_settings()) > 0
    assert read_queue(broker.client, get_settings()).outstanding == 0


@pytest.mark.parametrize("limit", ["message's", "worker's"])
@pytest.mark.parametrize("kind", ["time_limit", "soft_time_limit"])
def test_a_time_limit_fails_only_who_exceeds_it(
    broker: RedisServer, stack_env: dict[str, str], tmp_path: Path, limit: str, kind: str
) -> None:
    """All three together take 2.4 s, two of them alone 0.4 s, and the one of four chunks 1.6 s."""
    env = stack_env | {"EMBED_FAKE_TEXT_MS": "400", "EMBED_POISON_LOSSES": "1"}
    texts = ["quick", "a neighbour", " ".join(map(str, range(1000)))]
    own: dict[str, Any] = {kind: 1.0} if limit == "message's" else {}
    options = [] if own else [f"--{kind.replace('_', '-')}", "1.0"]
    with local_worker(tmp_path, env, options=options, concurrency=1):
        result = embed.apply_async((texts,), **own)
        job = Job(str(result.id), ()).wait(TIMEOUT_S)
    assert (job.done, job.failed) == (2, 1)
    assert [letter.text for letter in read_letters(broker.client, get_settings())] == [texts[2]]


def test_a_cancelled_task_has_a_result(
    broker: RedisServer, stack_env: dict[str, str], tmp_path: Path
) -> None:
    result = embed.delay("never mind")
    assert Job(str(result.id), ()).cancel() == 1
    with local_worker(tmp_path, stack_env):
        assert result.get(timeout=TIMEOUT_S)["done"] == 0


def test_a_full_redis_drains(
    broker: RedisServer, stack_env: dict[str, str], tmp_path: Path
) -> None:
    env = stack_env | {"EMBED_FAKE_CALL_MS": "300"}
    with local_worker(tmp_path, env):
        jobs = [submit([f"{n}-{m} " + "x" * 200 for m in range(64)]) for n in range(20)]
        try:
            broker.client.config_set("maxmemory", 1024 * 1024)
            with pytest.raises(BrokerDown):
                submit("no room")
            assert {job.wait(TIMEOUT_S).done for job in jobs} == {64}
        finally:
            broker.client.config_set("maxmemory", 0)


def test_called_directly_it_replaces_what_is_there(
    broker: RedisServer, qdrant: LocalQdrant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBED_QDRANT_URL", qdrant.url)
    get_settings.cache_clear()
    try:
        for text in ("first", "second"):
            assert embed({"id": "direct", "text": text})["done"] == 1
    finally:
        monkeypatch.undo()
        get_settings.cache_clear()
        close_resources()
    point = point_id("documents", "direct", 0)
    stored = httpx.get(f"{qdrant.url}/collections/documents/points/{point}").json()["result"]
    assert stored["payload"]["text"] == "second"
