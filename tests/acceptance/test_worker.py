"""Real workers: they start whole or not at all, replace lost children, keep texts to themselves."""

import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from celery import Celery
from qdrant_client import models

from tasks import embed
from tasks.gpus import DRIVER
from tasks.messages import QUEUE
from tasks.presence import workers
from tasks.settings import DEFAULT_MODEL, get_settings
from tasks.statistics import TTL_S, Statistics, read_statistics
from tests.processes import Program, wait_until
from tests.qdrant_server import LocalQdrant
from tests.redis_server import RedisServer, local_redis
from tests.worker import local_worker
from workers.departure import EX_UNAVAILABLE

TIMEOUT_S = 60
HEARTBEAT_S = 5.0
"""Celery's events have one every 2 s."""
SECRET = "a text that nobody else may read"


def start(folder: Path, env: Mapping[str, str], *options: str, **changes: str) -> Program:
    """A worker as a user starts it, without waiting for it."""
    celery = Path(sys.executable).parent / "celery"
    argv = [str(celery), "-A", "workers", "worker", "-n", "single@localhost", *options]
    return Program(argv, log=folder / "log", env={**env, **changes})


@pytest.mark.parametrize(
    ("options", "changes", "sentence"),
    [
        ((), {"EMBED_MODLE": "x"}, "EMBED_MODLE is not a setting of Embedmill; did you mean"),
        ((), {"EMBED_BATCH_TOKENS": "0"}, "EMBED_BATCH_TOKENS='0'"),
        ((), {"EMBED_MODEL": "/nowhere/at/all"}, "EMBED_MODEL=/nowhere/at/all is not a folder"),
        ((), {"EMBED_DEVICE": "mps"}, "start the worker with -P solo"),
        ((), {"EMBED_COLLECTION": "theirs"}, "collection theirs was made by another-model"),
    ],
)
def test_what_cannot_work_ends_the_start_with_a_sentence(
    stack_env: dict[str, str],
    qdrant: LocalQdrant,
    tmp_path: Path,
    options: tuple[str, ...],
    changes: dict[str, str],
    sentence: str,
) -> None:
    make_theirs(qdrant)
    program = start(tmp_path, stack_env, *options, **changes)
    assert program.wait(TIMEOUT_S) == 1
    assert sentence in program.output()
    assert "Traceback" not in program.output()


NO_GPU = pytest.mark.skipif(DRIVER.is_dir(), reason="there is a CUDA device")


@pytest.mark.parametrize(
    ("device", "sentence"),
    [
        pytest.param("cpu", "cannot be loaded", id="by the main process"),
        pytest.param("cuda", "sees no CUDA device", id="by its children", marks=NO_GPU),
    ],
)
def test_a_model_that_cannot_be_loaded_ends_the_worker(
    stack_env: dict[str, str], broker: RedisServer, tmp_path: Path, device: str, sentence: str
) -> None:
    embed.delay("it waits for a better worker")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{}")
    changes = {"EMBED_MODEL": str(broken), "EMBED_COLLECTION": "new", "EMBED_DEVICE": device}
    program = start(tmp_path, stack_env, "-c", "2", **changes)
    assert program.wait(TIMEOUT_S) == 78
    assert program.output().count(sentence) == 1
    assert "Traceback" not in program.output()
    assert broker.client.llen(QUEUE) == 1
    assert workers(broker.client) == []
    assert not list(Path(tempfile.gettempdir()).glob(f"embedmill-*-{program.pid}.reports"))


def test_a_killed_child_is_replaced_and_its_work_done(
    stack_env: dict[str, str], broker: RedisServer, tmp_path: Path
) -> None:
    slow = {**stack_env, "EMBED_FAKE_CALL_MS": "300"}
    with local_worker(tmp_path, slow) as worker:
        victim, *_ = before = worker.children()
        assert {child.pid for child in statistics(broker).children} == {p.pid for p in before}
        results = [embed.delay(f"text {number}") for number in range(8)]
        victim.kill()
        assert all(result.get(timeout=TIMEOUT_S)["done"] == 1 for result in results)
        wait_until(lambda: victim not in worker.children(), "the dead child is gone")
        worker.wait()
        assert len(worker.children()) == len(before)
        alive = {child.pid for child in worker.children()}
        wait_until(
            lambda: {child.pid for child in statistics(broker).children} == alive,
            "the dead child's series are gone, and the next one's there",
            timeout_s=0.6 * TTL_S,  # its worker takes them away; else they would expire
        )
    # the one that was killed may have taken the measurements of its last second with it
    assert statistics(broker).counters["texts"] >= 4
    assert statistics(broker).children == []


def statistics(broker: RedisServer) -> Statistics:
    return read_statistics(broker.client, get_settings())


def test_a_worker_that_stops_says_so(
    stack_env: dict[str, str], broker: RedisServer, tmp_path: Path
) -> None:
    with local_worker(tmp_path, stack_env, name="short-lived") as worker:
        [presence] = workers(broker.client)
        assert (presence.name, presence.pid) == (worker.name, worker.program.pid)
        assert presence.card is not None
        assert presence.card.name == "fake"
    assert workers(broker.client) == []


@pytest.mark.slow
def test_a_stopping_worker_does_not_wait_for_a_redis_that_hangs(
    qdrant: LocalQdrant, tmp_path: Path
) -> None:
    """It accepts connections and answers nothing, as behind a network that has gone."""
    with local_redis(tmp_path) as own:
        env = {
            "EMBED_BROKER_URL": own.url,
            "EMBED_QDRANT_URL": qdrant.url,
            "EMBED_MODEL": "fake",
        }
        with local_worker(tmp_path, env) as worker:
            children = worker.children()
            own.program.send(signal.SIGSTOP)
            try:
                began = time.monotonic()
                wait_until(lambda: time.monotonic() - began > HEARTBEAT_S, "it has tried to speak")
                worker.program.send(signal.SIGTERM)
                assert worker.program.wait(90) == EX_UNAVAILABLE
            finally:
                own.program.send(signal.SIGCONT)
            wait_until(lambda: not any(child.is_running() for child in children), "all ended")


@pytest.mark.slow
def test_a_worker_says_for_how_long_its_longest_batch_has_run(
    stack_env: dict[str, str], broker: RedisServer, tmp_path: Path
) -> None:
    with local_worker(tmp_path, {**stack_env, "EMBED_FAKE_CALL_MS": "8000"}):
        assert [presence.busy_s for presence in workers(broker.client)] == [0]
        result = embed.delay("a slow one")
        wait_until(lambda: workers(broker.client)[0].busy_s > 0, "it is said")
        result.get(timeout=TIMEOUT_S)
        wait_until(lambda: workers(broker.client)[0].busy_s == 0, "it is over")


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_pools_without_children_work_too(
    stack_env: dict[str, str], broker: RedisServer, tmp_path: Path, pool: str
) -> None:
    program = start(tmp_path, stack_env, "-P", pool, "-c", "1")
    try:
        program.wait_until(lambda: _warm(broker), "it is warm")
        assert embed.delay("hello").get(timeout=TIMEOUT_S)["done"] == 1
    finally:
        assert program.stop() == 0


def _warm(broker: RedisServer) -> bool:
    return [presence.warm for presence in workers(broker.client)] == [1]


def test_a_collection_of_another_model_fails_its_documents(
    stack_env: dict[str, str], broker: RedisServer, qdrant: LocalQdrant, tmp_path: Path
) -> None:
    foreign = Celery(broker=broker.url, backend=broker.url)
    with local_worker(tmp_path, stack_env):
        make_theirs(qdrant)
        arguments = (["hello"], "theirs")
        result = foreign.send_task("tasks.embed", arguments, queue=QUEUE)
        with pytest.raises(Exception, match="another-model"):
            result.get(timeout=TIMEOUT_S)


def test_texts_stay_out_of_inspect_events_and_logs(
    stack_env: dict[str, str], broker: RedisServer, tmp_path: Path
) -> None:
    slow = {**stack_env, "EMBED_FAKE_CALL_MS": "3000"}
    with local_worker(tmp_path, slow, concurrency=1) as worker:
        foreign = Celery(broker=broker.url, backend=broker.url)
        for _ in range(3):
            foreign.send_task("tasks.embed", ([SECRET, SECRET],), queue=QUEUE)
        shown: dict[str, Any] = {}
        inspect = foreign.control.inspect(timeout=2)
        wait_until(lambda: shown.update(inspect.active() or {}) or _any(shown), "one is active")
        held = f"{shown} {inspect.reserved()}"
        assert "(2 documents)" in held
        assert SECRET not in held
        assert SECRET not in worker.program.output()


def _any(shown: dict[str, Any]) -> bool:
    return any(shown.values())


def make_theirs(qdrant: LocalQdrant) -> None:
    """A collection that another model made."""
    with qdrant.connect() as client:
        if not client.collection_exists("theirs"):
            client.create_collection(
                "theirs",
                vectors_config=models.VectorParams(size=384, distance=models.Distance.COSINE),
                metadata={"embedmill": {"model": "another-model", "dimension": 384}},
            )


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_children_share_what_the_main_process_has_loaded(
    broker: RedisServer, stack_env: dict[str, str], tmp_path: Path
) -> None:
    env = stack_env | {"EMBED_MODEL": DEFAULT_MODEL, "EMBED_COLLECTION": "of-the-real-model"}
    with local_worker(tmp_path, env, concurrency=1) as worker:
        (child,) = worker.children()
        loaded = child.memory_full_info()
        assert loaded.uss < loaded.rss / 3
        assert psutil.Process(worker.program.pid).memory_info().rss > loaded.rss / 2
