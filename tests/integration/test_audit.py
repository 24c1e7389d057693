"""What lost its message is settled, and what still has one anywhere is left alone."""

import json
import subprocess
import sys
from collections.abc import Callable

import pytest
from celery import Celery

from tasks.admission import ledger, redis_client
from tasks.client import Job, submit
from tasks.ledger import Submission, run
from tasks.messages import HEADER, QUEUE
from tasks.settings import Settings
from tasks.snapshot import UNACKED, read_queue
from tests.redis_server import RedisServer
from workers.audit import PAGE_MESSAGES, Audit

Look = Callable[[], int]


@pytest.fixture
def look(settings: Settings) -> Look:
    """An audit that suspects every job at once; how many documents it cancels."""
    return Audit(settings, grace_s=-1, pause_s=0).run


def submit_many(texts: int, *, name: str = "text") -> Job:
    return submit([f"{name} {number}" for number in range(texts)])


def take_all(broker: RedisServer) -> list[bytes]:
    """The queue's messages, the newest first."""
    messages = broker.client.lrange(QUEUE, 0, -1)
    broker.client.delete(QUEUE)
    return [message for message in messages if isinstance(message, bytes)]


def hold(broker: RedisServer, message: bytes, tag: str = "tag") -> None:
    """As kombu does for a message that a worker has fetched."""
    broker.client.hset(UNACKED, tag, json.dumps([json.loads(message), "", QUEUE]))


def test_purged_work_gives_its_room_back(
    broker: RedisServer, settings: Settings, look: Look
) -> None:
    job = submit_many(200)
    command = [sys.executable, "-m", "celery", "-A", "tasks", "purge", "-f"]
    subprocess.run(command, check=True, capture_output=True)
    assert read_queue(broker.client, settings).outstanding == 200
    assert look() == 200
    queue = read_queue(broker.client, settings)
    assert (queue.outstanding, queue.outstanding_bytes) == (0, 0)
    progress = job.progress()
    assert (progress.state, progress.cancelled) == ("cancelled", 200)
    assert {error["code"] for error in progress.errors} == {"message_gone"}
    assert look() == 0


def test_what_waits_is_left_alone(broker: RedisServer, look: Look) -> None:
    for number in range(3):
        submit_many(100, name=str(number))
    assert look() == 0


def test_only_the_documents_of_the_lost_message_are_cancelled(
    broker: RedisServer, look: Look
) -> None:
    job = submit_many(256)
    waiting, held, lost, elsewhere = take_all(broker)
    assert json.loads(lost)["headers"][HEADER]["start"] == 64
    hold(broker, held)
    broker.client.lpush("another-queue", elsewhere)
    broker.client.lpush("a-third-queue", waiting)
    assert look() == 64
    assert {error["index"] for error in job.progress().errors} == set(range(64, 128))


@pytest.mark.parametrize("behind", [0, 1, PAGE_MESSAGES - 1, PAGE_MESSAGES, 3 * PAGE_MESSAGES])
def test_a_message_that_was_given_back_behind_others_is_found(
    broker: RedisServer, look: Look, behind: int
) -> None:
    submit_many(1, name="old")
    for number in range(behind):
        submit_many(1, name=f"young {number}")
    broker.client.lmove(QUEUE, QUEUE, "RIGHT", "LEFT")
    assert look() == 0
    broker.client.lpop(QUEUE)
    assert look() == 1


def test_many_messages_that_workers_hold_are_found(broker: RedisServer, look: Look) -> None:
    for number in range(3 * PAGE_MESSAGES):
        submit_many(1, name=f"held {number}")
    for tag, message in enumerate(take_all(broker)):
        hold(broker, message, str(tag))
    assert look() == 0
    broker.client.hdel(UNACKED, "7")
    assert look() == 1


@pytest.mark.parametrize("holder", ["queue", "worker", "nobody"])
def test_an_adopted_message_is_known_by_its_task(
    broker: RedisServer, settings: Settings, look: Look, holder: str
) -> None:
    foreign = Celery(broker=broker.url)
    sent = foreign.send_task("tasks.embed", (["one", "two"],), queue=QUEUE)
    adopted = Submission(sent.id, ["a", "b"], [1, 1], [], "documents", "chunk", QUEUE)
    run(redis_client(), ledger().accept(adopted, mode="forced"))
    if holder != "queue":
        [message] = take_all(broker)
        if holder == "worker":
            hold(broker, message)
    assert look() == (2 if holder == "nobody" else 0)


def test_a_young_job_is_not_suspected(broker: RedisServer, settings: Settings) -> None:
    submit_many(1)
    broker.client.delete(QUEUE)
    assert Audit(settings, grace_s=60, pause_s=0).run() == 0


def test_a_job_id_of_any_characters_is_read(broker: RedisServer, look: Look) -> None:
    from tasks import embed

    embed.apply_async((["a"],), task_id='say "hello" \\ ☃')
    assert look() == 0
    broker.client.delete(QUEUE)
    assert look() == 1
