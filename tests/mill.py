"""The way of a document without processes: a real ledger, the fake encoder, and a store in memory
whose calls are moments at which something else may happen.
"""

import base64
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import orjson

from tasks.admission import ledger, redis_client
from tasks.celery import app
from tasks.client import Job, delete, submit
from tasks.errors import StoreDown, StoreRejected
from tasks.ledger import run
from tasks.letters import read_letters
from tasks.messages import HEADER, QUEUE, ModelCard
from tasks.replay import pack_letters
from tasks.settings import Settings
from workers.execution import Delivery, execute, read_delivery
from workers.upserts import Point, Stored

COLLECTION = "life"
LONG = " ".join(f"word{number}." for number in range(400))
REFUSED = "refused "


class Killed(BaseException):
    """The process that works ends here."""


class Memory:
    """A conditional store, as `workers.store` is one; `moment` comes before and after writes."""

    def __init__(self) -> None:
        self.points: dict[str, Point] = {}
        self.moment: Callable[[], None] = lambda: None
        self.strict = self.away = False
        self.writes = 0

    def ensure_collection(self, name: str, card: ModelCard) -> None: ...

    def read(self, collection: str, document_ids: Collection[str]) -> list[Stored]:
        names = ("document_id", "sequence", "chunks", "fingerprint")
        return [
            Stored(one.id, *(one.payload[name] for name in names))
            for one in self.points.values()
            if one.payload["document_id"] in document_ids
        ]

    def upsert(self, collection: str, points: Sequence[Point]) -> None:
        if self.strict and any(REFUSED in point.payload["text"] for point in points):
            raise StoreRejected("not to its taste")
        self.moment()
        self.writes += 1
        newest = {p.payload["document_id"]: p.payload["sequence"] for p in points}
        for row in self.read(collection, newest):
            newest[row.document_id] = max(newest[row.document_id], row.sequence)
        for point in points:
            if point.payload["sequence"] == newest[point.payload["document_id"]]:
                self.points[point.id] = point
        self.delete(collection, newest, said=False)
        self.moment()

    def delete(self, collection: str, numbers: Mapping[str, int], *, said: bool = True) -> None:
        if said:
            self.moment()
            if self.away:
                raise StoreDown("no store")
        self.points = {
            name: point
            for name, point in self.points.items()
            if point.payload["sequence"] >= numbers.get(point.payload["document_id"], 0)
        }
        if said:
            self.moment()

    def close(self) -> None: ...

    def texts(self) -> dict[str, str]:
        """The first words of each document's chunks, and none missing."""
        found: dict[str, list[Point]] = {}
        for point in self.points.values():
            found.setdefault(point.payload["document_id"], []).append(point)
        for points in found.values():
            assert {point.payload["chunks"] for point in points} == {len(points)}
            assert len({point.payload["sequence"] for point in points}) == 1
        first = {name: min(found[name], key=lambda point: point.payload["chunk"]) for name in found}
        return {name: " ".join(p.payload["text"].split()[:2]) for name, p in first.items()}


class Mill:
    """Accepts, and delivers messages when the test wants it."""

    def __init__(self, store: Memory, settings: Settings) -> None:
        self.store, self.settings = store, settings
        self.client = redis_client()

    def write(self, *documents: tuple[str, str]) -> Delivery:
        rows = [{"id": name, "text": text} for name, text in documents]
        submit(rows, collection=COLLECTION)
        return self.take()

    def delete(self, *ids: str) -> Delivery:
        delete(list(ids), collection=COLLECTION)
        return self.take()

    def replay(self) -> list[Delivery]:
        letters = list(read_letters(self.client, self.settings))
        packed = pack_letters(app, letters, self.settings)
        assert not packed.refused
        run(self.client, ledger().accept_all(packed.submissions))
        return [self.take() for _ in packed.submissions]

    def take(self) -> Delivery:
        """The next message, as a child gets it."""
        message: dict[str, Any] = orjson.loads(self.client.rpop(QUEUE))  # type: ignore[arg-type]
        (documents,), options, _ = orjson.loads(base64.b64decode(message["body"]))
        headers = message["headers"]
        return read_delivery(headers["id"], headers[HEADER], documents, **options)

    def deliver(self, *deliveries: Delivery) -> None:
        execute(deliveries)

    def job(self, delivery: Delivery) -> Job:
        return Job(delivery.job_id, ())
