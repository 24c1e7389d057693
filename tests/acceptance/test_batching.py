"""Batches grow from what waits, and each message in them keeps a life of its own."""

import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from threading import Event, Thread
from typing import Any

import psutil
import pytest
from celery import Celery
from celery.result import AsyncResult

from tasks import app, embed
from tasks.client import Job
from tasks.settings import get_settings
from tasks.snapshot import JobSnapshot, read_queue
from tests.processes import wait_until
from tests.redis_server import RedisServer
from tests.worker import Worker, local_worker

TIMEOUT_S = 60
CALL_S = 0.4
"""What each pass of the fake model costs here."""
CHILDREN = 2
SENDING_S = 5.0


@pytest.fixture(scope="module")
def slow(stack_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker whose passes take long enough for messages to gather."""
    env = stack_env | {"EMBED_FAKE_CALL_MS": str(CALL_S * 1000)}
    with local_worker(tmp_path_factory.mktemp("slow"), env, concurrency=CHILDREN) as worker:
        yield worker


@pytest.fixture
def quiet(slow: Worker, broker: RedisServer) -> Worker:
    """The slow worker on an emptied Redis."""
    wait_until(slow._warm, "it announces itself anew")
    embed.delay("a first text makes the collection").get(timeout=TIMEOUT_S)
    return slow


def job(result: AsyncResult[Any]) -> JobSnapshot:
    return Job(str(result.id), ()).progress()


def settled(results: list[AsyncResult[Any]]) -> bool:
    return all(job(result).state != "open" for result in results)


def outstanding(broker: RedisServer) -> int:
    return read_queue(broker.client, get_settings()).outstanding


@contextmanager
def events() -> Iterator[Counter[str]]:
    """Count the task events of the block."""
    seen: Counter[str] = Counter()
    stop = Event()

    def listen() -> None:
        with app.connection() as connection:
            receiver = app.events.Receiver(
                connection, handlers={"*": lambda event: seen.update([event["type"]])}
            )
            for _ in receiver.consume(limit=None, timeout=None, wakeup=True):
                if stop.is_set():
                    return

    def captured() -> None:
        try:
            listen()
        except (OSError, TimeoutError):
            return

    thread = Thread(target=captured, daemon=True)
    thread.start()
    wait_until(lambda: seen["worker-heartbeat"], "events arrive")
    try:
        yield seen
    finally:
        stop.set()
        thread.join(10)


def test_messages_that_wait_share_a_pass(quiet: Worker) -> None:
    alone_s = 60 * CALL_S / CHILDREN
    started = time.monotonic()
    results = [embed.delay(f"shared {n}") for n in range(60)]
    assert [result.get(timeout=TIMEOUT_S)["done"] for result in results] == [1] * 60
    assert time.monotonic() - started < alone_s / 2


@pytest.mark.parametrize("times", [2, 8])
def test_it_keeps_up_with_more_than_single_texts_would_allow(quiet: Worker, times: int) -> None:
    """Open loop: texts come at `times` the rate at which one a pass could go."""
    interval_s = CALL_S / CHILDREN / times
    began, results = time.monotonic(), []
    for number in range(round(SENDING_S / interval_s)):
        wait_until(partial(_is_past, began + number * interval_s), "it is due")
        results.append(embed.delay(f"load {times} {number}"))
    sent_s = time.monotonic() - began
    for result in results:
        assert result.get(timeout=TIMEOUT_S)["done"] == 1
    assert time.monotonic() - began < sent_s * 1.5


def _is_past(moment: float) -> bool:
    return time.monotonic() >= moment


def test_every_member_has_its_events_and_its_true_runtime(quiet: Worker) -> None:
    with events() as seen:
        results = [embed.delay(f"seen {n}") for n in range(40)]
        for result in results:
            result.get(timeout=TIMEOUT_S)
        wait_until(lambda: seen["task-succeeded"] == 40, "all have succeeded")
    assert seen["task-received"] == seen["task-started"] == 40


def test_a_member_that_fails_fails_alone(quiet: Worker) -> None:
    fine = [embed.delay(f"fine {n}", on_long="error") for n in range(10)]
    bad = embed.delay("word " * 400, on_long="error")
    assert [result.get(timeout=TIMEOUT_S)["done"] for result in fine] == [1] * 10
    assert "text_too_long" in str(bad.get(timeout=TIMEOUT_S, propagate=False))


def test_a_foreign_id_that_cannot_be_a_job_s_hurts_nobody(
    quiet: Worker, broker: RedisServer
) -> None:
    """One with a colon is an ordinary one; `x:open` would be the name of another job's part."""
    fine = [embed.delay(f"beside {n}") for n in range(10)]
    with Celery(broker=broker.url, set_as_current=False) as stock:
        for task_id in ("import:open", "import:42"):
            stock.send_task("tasks.embed", [task_id], queue="embed", task_id=task_id)
    assert [result.get(timeout=TIMEOUT_S)["done"] for result in fine] == [1] * 10
    assert Job("import:42", ()).wait(TIMEOUT_S).done == 1
    assert embed.delay("after it").get(timeout=TIMEOUT_S)["done"] == 1


def test_collections_are_not_mixed_up(quiet: Worker) -> None:
    results = [embed.delay(f"mixed {n}", collection=f"mixed-{n % 3}") for n in range(12)]
    assert all(result.get(timeout=TIMEOUT_S)["points"] == 1 for result in results)


def test_a_revoked_member_is_cancelled_and_the_others_are_done(
    quiet: Worker, broker: RedisServer
) -> None:
    results = [embed.delay(f"revoked {n}") for n in range(12)]
    revoked = results[-1]
    revoked.revoke()
    wait_until(lambda: settled(results), "all are settled")
    assert Counter(job(result).state for result in results[:-1]) == Counter(done=11)
    last = job(revoked)
    assert (last.done, last.cancelled) in {(0, 1), (1, 0)}  # it may have been quicker
    assert outstanding(broker) == 0


def test_an_expired_message_is_cancelled(quiet: Worker, broker: RedisServer) -> None:
    quiet.program.send(signal.SIGSTOP)
    late = embed.apply_async(("too late",), expires=0.1)
    wait_until(partial(_is_past, time.monotonic() + 0.2), "it has expired")
    quiet.program.send(signal.SIGCONT)
    wait_until(lambda: settled([late]), "it is settled")
    assert job(late).cancelled == 1
    assert outstanding(broker) == 0


def test_terminating_a_member_gives_the_others_back(quiet: Worker, broker: RedisServer) -> None:
    results = [embed.delay(f"terminated {n}") for n in range(20)]
    victim = results[-1]
    wait_until(lambda: job(victim).state != "open" or _runs(quiet, victim), "it runs")
    victim.revoke(terminate=True, signal="SIGKILL")
    wait_until(lambda: settled(results), "all are settled", timeout_s=TIMEOUT_S)
    assert Counter(job(result).done for result in results[:-1]) == Counter({1: 19})
    assert outstanding(broker) == 0


def _runs(worker: Worker, result: AsyncResult[Any]) -> bool:
    active = app.control.inspect([worker.name], timeout=1).active() or {}
    return any(task["id"] == result.id for tasks in active.values() for task in tasks)


def test_a_lost_child_loses_nothing(quiet: Worker, broker: RedisServer) -> None:
    results = [embed.delay(f"lost {n}") for n in range(30)]
    big = embed.delay([f"lost big {n}" for n in range(50)])
    child = _busy_child(quiet)
    child.kill()
    for result in [*results, big]:
        assert result.get(timeout=TIMEOUT_S)["failed"] == 0
    assert outstanding(broker) == 0
    wait_until(lambda: broker.client.hlen("unacked") == 0, "all is acknowledged")


def _busy_child(worker: Worker) -> psutil.Process:
    pids: list[int] = []

    def some_run() -> bool:
        active = app.control.inspect([worker.name], timeout=1).active() or {}
        pids.extend(t["worker_pid"] for tasks in active.values() for t in tasks if t["worker_pid"])
        return bool(pids)

    wait_until(some_run, "a child works")
    return psutil.Process(pids[0])


def test_inspect_shows_no_texts(quiet: Worker) -> None:
    results = [embed.delay(f"secret {n}") for n in range(30)]
    shown = ""
    inspect = app.control.inspect([quiet.name], timeout=1)

    def seen() -> bool:
        nonlocal shown
        shown += str(inspect.active()) + str(inspect.reserved())
        return "(1 document)" in shown or settled(results)

    wait_until(seen, "inspect shows tasks")
    assert "secret" not in shown
    for result in results:
        result.get(timeout=TIMEOUT_S)


def test_countdowns_wait_and_then_run(quiet: Worker, broker: RedisServer) -> None:
    result = embed.apply_async(("later",), countdown=2)
    queue = read_queue(broker.client, get_settings())
    assert (queue.outstanding, queue.oldest_age_s, queue.idle_s) == (1, 0, 0)
    assert result.get(timeout=TIMEOUT_S)["done"] == 1
    assert outstanding(broker) == 0
