"""Deletions on the whole way: over HTTP and from Python, and the audit agrees with them."""

import httpx
import pytest
from qdrant_client import QdrantClient, models

from compose.verify import Difference, Store, compare
from tasks.client import Job, delete, submit
from tasks.messages import point_id
from tasks.roster import read_roster
from tasks.settings import Settings, get_settings
from tests.qdrant_server import LocalQdrant
from tests.redis_server import RedisServer
from tests.web_server import WebServer

COLLECTION = "deletions"
LONG = "word " * 600


def differences(
    job_id: str, broker: RedisServer, client: QdrantClient, settings: Settings
) -> list[Difference]:
    roster = read_roster(broker.client, job_id, settings)
    store = Store(client, settings.qdrant_url, roster.collection)
    return list(compare(roster, store, broker.client, settings))


def stored(client: QdrantClient) -> set[str]:
    records, _ = client.scroll(COLLECTION, limit=10_000, with_payload=["document_id"])
    return {(record.payload or {})["document_id"] for record in records}


def put_back(client: QdrantClient, document_id: str) -> None:
    """As nothing of ours does: under a number of before all."""
    payload = {"document_id": document_id, "sequence": 1, "chunks": 1}
    name, dimension = point_id(COLLECTION, document_id, 0), get_settings().fake_dimension
    point = models.PointStruct(id=name, vector=[1.0] * dimension, payload=payload)
    client.upsert(COLLECTION, [point], wait=True)


@pytest.mark.usefixtures("worker")
def test_documents_go_and_the_audit_agrees(
    web: WebServer, broker: RedisServer, qdrant: LocalQdrant, settings: Settings
) -> None:
    rows = [{"id": f"d/{number}", "text": f"text {number}"} for number in range(200)]
    written = submit([*rows, {"id": "long", "text": LONG}], collection=COLLECTION)
    written.wait(60)
    with qdrant.connect() as client, httpx.Client(base_url=web.url) as http:
        one = http.delete(f"/collections/{COLLECTION}/documents/long").json()
        ids = [f"d/{number}" for number in range(0, 200, 2)]
        many = http.post(f"/collections/{COLLECTION}/documents/delete", json={"ids": ids}).json()
        last = delete(["d/1", "never was"], collection=COLLECTION)
        for job in (Job(one["job_id"], ()), Job(many["job_id"], ()), last):
            found = job.wait(60)
            assert (found.done, found.accepted, found.failed) == (found.accepted, found.done, 0)
            assert differences(job.id, broker, client, settings) == []
        assert stored(client) == {f"d/{number}" for number in range(3, 200, 2)}
        assert differences(written.id, broker, client, settings) == []
        client.delete(COLLECTION, [str(client.scroll(COLLECTION, limit=1)[0][0].id)], wait=True)
        assert len(differences(written.id, broker, client, settings)) == 1
        put_back(client, "d/2")
        assert len(differences(written.id, broker, client, settings)) == 2
        assert len(differences(many["job_id"], broker, client, settings)) == 1
        again = submit(rows[:2], collection=COLLECTION).wait(60)
        assert (again.done, again.unchanged) == (2, 0)
        assert {"d/0", "d/1"} <= stored(client)
        assert len(differences(many["job_id"], broker, client, settings)) == 1  # of "d/2" still
        assert differences(last.id, broker, client, settings) == []


@pytest.mark.usefixtures("worker", "broker")
def test_a_collection_that_is_not_there_is_not_made(qdrant: LocalQdrant) -> None:
    assert delete("a", collection="nowhere").wait(60).done == 1
    with qdrant.connect() as client:
        assert not client.collection_exists("nowhere")
