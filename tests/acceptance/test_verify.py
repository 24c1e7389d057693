"""`embedmill verify` agrees with what is so, and says which document was tampered with."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from qdrant_client import QdrantClient, models

from compose.verify import Difference, Store, compare
from tasks.client import Job, submit
from tasks.ledger import Ledger, Submission, run
from tasks.messages import QUEUE, point_id
from tasks.roster import read_roster
from tasks.settings import Settings
from tests.qdrant_server import LocalQdrant
from tests.redis_server import RedisServer
from tests.worker import Worker

EMBEDMILL = str(Path(sys.executable).parent / "embedmill")
COLLECTION = "documents"
LONG = "word " * 600


@dataclass
class Auditor:
    """What the tests ask of the verb and of the store behind its back."""

    broker: RedisServer
    qdrant: QdrantClient
    settings: Settings
    env: dict[str, str]

    def differences(self, job: Job) -> list[Difference]:
        roster = read_roster(self.broker.client, job.id, self.settings)
        store = Store(self.qdrant, self.settings.qdrant_url, roster.collection)
        return list(compare(roster, store, self.broker.client, self.settings))

    def call(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [EMBEDMILL, "verify", *arguments]
        return subprocess.run(
            command, env={**self.env, "PATH": ""}, capture_output=True, text=True, check=False
        )

    def delete_point(self, document_id: str, chunk: int = 0) -> None:
        self.qdrant.delete(COLLECTION, [point_id(COLLECTION, document_id, chunk)], wait=True)

    def write_sequence(self, document_id: str, sequence: int) -> None:
        name = point_id(COLLECTION, document_id, 0)
        [record] = self.qdrant.retrieve(COLLECTION, [name], with_vectors=True)
        payload = {**(record.payload or {}), "sequence": sequence}
        point = models.PointStruct(id=name, vector=record.vector, payload=payload)
        self.qdrant.upsert(COLLECTION, [point], wait=True)


@pytest.fixture
def auditor(
    worker: Worker,
    broker: RedisServer,
    qdrant: LocalQdrant,
    settings: Settings,
    stack_env: dict[str, str],
) -> Iterator[Auditor]:
    with qdrant.connect() as client:
        found = settings.model_copy(update={"qdrant_url": qdrant.url})
        yield Auditor(broker, client, found, stack_env)


def submit_many(texts: int, name: str, revision: str = "") -> Job:
    documents = [
        {"id": f"{name}-{number}", "text": f"{name} {number} {revision}"} for number in range(texts)
    ]
    job = submit(documents)
    job.wait(60)
    return job


def test_a_job_that_is_as_it_should_be(auditor: Auditor) -> None:
    job = submit(["twice", "twice", LONG, *(f"text {number}" for number in range(130))])
    job.wait(60)
    answer = auditor.call(job.id)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "133 accepted, 0 open, 133 done" in answer.stdout
    assert "No differences." in answer.stdout


def test_a_point_that_was_deleted_by_hand_is_named(auditor: Auditor) -> None:
    job = submit_many(100, "[/odd]")
    auditor.delete_point("[/odd]-77")
    shown = auditor.call(job.id)
    assert shown.returncode == 1
    assert "[/odd]-77" in shown.stdout
    told = auditor.call(job.id, "--json")
    assert told.returncode == 1
    [difference] = json.loads(told.stdout)["differences"]
    assert (difference["index"], difference["id"]) == (77, "[/odd]-77")


def test_a_job_that_is_unknown_is_said_so(auditor: Auditor) -> None:
    answer = auditor.call("unknown")
    assert answer.returncode == 1
    assert "there is no job 'unknown'" in answer.stderr


def test_every_chunk_is_looked_for(auditor: Auditor) -> None:
    job = submit({"id": "long", "text": LONG})
    job.wait(60)
    assert auditor.differences(job) == []
    auditor.delete_point("long", chunk=2)
    [difference] = auditor.differences(job)
    assert difference.detail == "chunk 3 of 3 is not in the store"


def test_a_later_text_may_have_replaced_it_but_no_earlier_one(auditor: Auditor) -> None:
    first = submit_many(3, "replaced")
    second = submit_many(3, "replaced", "revised")
    assert auditor.differences(first) == auditor.differences(second) == []
    earlier = read_roster(auditor.broker.client, first.id, auditor.settings).entries[1]
    auditor.write_sequence("replaced-1", earlier.sequence)
    assert auditor.differences(first) == []
    [difference] = auditor.differences(second)
    assert (difference.id, difference.ending) == ("replaced-1", "done")


def test_an_unchanged_document_is_there_under_an_earlier_number(auditor: Auditor) -> None:
    first, second = submit_many(3, "unchanged"), submit_many(3, "unchanged")
    assert second.progress().unchanged == 3
    assert auditor.differences(first) == auditor.differences(second) == []
    auditor.delete_point("unchanged-1")
    [difference] = auditor.differences(second)
    assert difference.id == "unchanged-1"
    assert submit_many(3, "unchanged").progress().unchanged == 2
    assert auditor.differences(second) == []


def test_counters_have_to_fit_the_documents(auditor: Auditor) -> None:
    job = submit_many(3, "counted")
    auditor.broker.client.hincrby(f"embedmill:job:{job.id}", "done", -1)
    details = [difference.detail for difference in auditor.differences(job)]
    assert details == [
        "the job counts 1, its documents are 0",
        "the job counts 2, its documents are 3",
    ]


def test_what_failed_has_a_reason(auditor: Auditor) -> None:
    job = submit([LONG, "short"], on_long="error")
    assert job.wait(60).failed == 1
    assert auditor.differences(job) == []
    auditor.broker.client.delete(f"embedmill:job:{job.id}:errors")
    assert auditor.differences(job) == []
    auditor.broker.client.delete("embedmill:dead")
    [difference] = auditor.differences(job)
    assert (difference.index, difference.ending) == (0, "failed")


def test_open_documents_whose_message_has_gone_are_named(auditor: Auditor) -> None:
    lost = Submission("lost", ["a", "b"], [1, 1], [], COLLECTION, "chunk", QUEUE)
    run(auditor.broker.client, Ledger(auditor.settings).accept(lost))
    differences = auditor.differences(Job("lost", ("a", "b")))
    assert [(row.index, row.ending) for row in differences] == [(0, "open"), (1, "open")]
