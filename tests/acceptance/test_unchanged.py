"""What has not changed is neither embedded nor written again, whoever sends it and how."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from qdrant_client import QdrantClient

from tasks import embed
from tasks.client import Job, submit
from tasks.settings import get_settings
from tasks.snapshot import JobSnapshot
from tasks.statistics import read_statistics
from tests.processes import wait_until
from tests.qdrant_server import LocalQdrant
from tests.redis_server import RedisServer
from tests.worker import Worker

COUNT = 300
LONG = "word " * 600
COLLECTION = "unchanged"


def documents(revision: str = "") -> list[dict[str, object]]:
    rows: list[dict[str, object]] = [
        {"id": f"d/{number}", "text": f"text {number % 200} {revision}", "metadata": {"n": number}}
        for number in range(COUNT)
    ]
    return [*rows, {"id": "long", "text": LONG}]


def send(rows: Sequence[object]) -> JobSnapshot:
    return submit(list(rows), collection=COLLECTION).wait(60)


def costs(broker: RedisServer) -> Mapping[str, int]:
    """What passes have cost so far; children tell it once a second."""
    found = read_statistics(broker.client, get_settings())
    return {name: found.counters[name] for name in ("texts", "points", "model_calls")}


def read_points(client: QdrantClient) -> dict[str, object]:
    records, _ = client.scroll(COLLECTION, limit=10_000)
    return {str(record.id): record.payload for record in records}


def test_the_same_documents_again(worker: Worker, broker: RedisServer, qdrant: LocalQdrant) -> None:
    with qdrant.connect() as client:
        first = send(documents())
        assert (first.done, first.unchanged, first.points) == (COUNT + 1, 0, COUNT + 3)
        wait_until(lambda: costs(broker)["points"] == COUNT + 3, "the costs are told")
        before, stored = costs(broker), read_points(client)
        jobs = [submit(documents(), collection=COLLECTION) for _ in range(3)]
        for job in jobs:
            assert counted(job) == {"done": COUNT + 1, "unchanged": COUNT + 1, "points": 0}
        assert read_points(client) == stored
        last = send(documents("revised"))
        assert (last.done, last.unchanged) == (COUNT + 1, 1)  # the long one is as it was
        points = before["points"] + COUNT
        wait_until(lambda: costs(broker)["points"] >= points, "the costs are told")
        assert costs(broker)["points"] == points
        assert costs(broker)["texts"] == before["texts"] + COUNT
    send_tasks()


def counted(job: Job) -> dict[str, object]:
    found = asdict(job.wait(60))
    return {name: found[name] for name in ("done", "unchanged", "points")}


def send_tasks() -> None:
    """A task's result says it, too."""
    text = "sent as a task, twice"
    assert embed.delay(text).get(timeout=30)["unchanged"] == 0
    assert embed.delay(text).get(timeout=30)["unchanged"] == 1
    assert embed.delay(text, on_long="truncate").get(timeout=30)["unchanged"] == 0
