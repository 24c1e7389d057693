"""The accounting at the end: what was promised, what the ledger says, and what is in the store."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import redis
from qdrant_client import QdrantClient

from tasks.messages import QUEUE, point_id
from tasks.roster import Roster, read_roster
from tasks.snapshot import UNACKED, read_queue
from tests.acceptance.chaos.senders import Receipt
from tests.acceptance.chaos.stack import Stack
from workers.encoder import encode_texts
from workers.fake import FakeEncoder

LISTED = 20
BOUNDED = frozenset(
    {
        "outstanding",
        "totals",
        "drain",
        "sequence",
        "collections",
        "workers",
        "jobs",
        "dead",
        "dead:bytes",
        "stats",
        "pending",
        "deleted",
        "deleted:until",
    }
)
"""Our keys that need no TTL: one each, as large as the queue's limit at most."""
BINDINGS, REPLIES = "_kombu.binding", ".reply.celery.pidbox"
"""Celery's own: an entry for each queue or worker's name; and answers that nobody has read, because
the worker was killed that had just asked the others who they are."""


@dataclass(frozen=True, slots=True)
class Promise:
    """The last accepted text of a document, and its acceptance number; `after` is that of the last
    other text before it."""

    text: str
    sequence: int
    after: int
    job_id: str
    index: int


Acceptance = tuple[int, str, str, int]
"""Of a document: its number, text, job, and index there."""


@dataclass(frozen=True, slots=True)
class Point:
    payload: Mapping[str, Any]
    vector: Sequence[float]


class Books:
    """Everything read once, after all is settled."""

    def __init__(self, stack: Stack, receipts: Sequence[Receipt]) -> None:
        self._stack, self._client = stack, stack.redis.client
        self._receipts = receipts
        self.rosters = {name: self._roster(name) for name in _jobs(self._client)}
        self.promises = self._promises()
        self._collection = stack.settings.collection
        self.points = _read_points(stack.store.url, self._collection)
        self._encoder = FakeEncoder(
            stack.settings.model_copy(update={"fake_call_ms": 0, "fake_text_ms": 0})
        )

    @property
    def duplicates(self) -> int:
        """Documents that were accepted without the client hearing of it, and then once more."""
        known = {receipt.job_id for receipt in self._receipts}
        return sum(r.accepted for name, r in self.rosters.items() if name not in known)

    @property
    def messages(self) -> int:
        """How many messages were accepted: each parcel is one."""
        return len(self.rosters)

    def deliveries(self) -> int:
        """How many messages workers received; what exceeds `messages` came back."""
        return sum(log.count("] received") for log in self._stack.logs().values())

    def differences(self, *, in_order: bool = True) -> list[str]:
        """A sentence for everything that is not as it should be.

        `in_order`: what is in the store has to be an acceptance of the last text. Of a text that
        was accepted twice in a row the later may find the earlier stored, and leave it there.
        """
        found = [
            *self._in_the_jobs(),
            *self._in_the_totals(),
            *self._in_the_queue(),
            *self._in_the_keys(),
            *self._in_the_store(in_order),
        ]
        more = [f"... and {len(found) - LISTED} more"] if len(found) > LISTED else []
        return found[:LISTED] + more

    def _roster(self, name: str) -> Roster:
        return read_roster(self._client, name, self._stack.settings)

    def _promises(self) -> dict[str, Promise]:
        accepted: dict[str, list[Acceptance]] = defaultdict(list)
        for receipt in self._receipts:
            roster = self.rosters.get(receipt.job_id)
            for entry, sheet in zip(roster.entries if roster else (), receipt.parcel, strict=True):
                accepted[sheet.id].append((entry.sequence, sheet.text, receipt.job_id, entry.index))
        return {name: _promise(sorted(rows)) for name, rows in accepted.items()}

    def _in_the_jobs(self) -> Iterator[str]:
        for receipt in self._receipts:
            if receipt.job_id not in self.rosters:
                yield f"job {receipt.job_id} was accepted and is not in the ledger"
        for name, roster in self.rosters.items():
            endings = Counter(entry.ending for entry in roster.entries)
            if endings != Counter(dict(roster.counts)):
                yield f"job {name} counts {roster.counts}, its documents are {endings}"
            for entry in roster.entries:
                if entry.ending != "done":
                    where = self._last_seen(name, entry.index)
                    yield f"{entry.id} of job {name} is {entry.ending}; {where}"

    def _in_the_totals(self) -> Iterator[str]:
        queue = read_queue(self._client, self._stack.settings)
        accepted = sum(roster.accepted for roster in self.rosters.values())
        done = sum(roster.counts["done"] for roster in self.rosters.values())
        if (queue.outstanding, queue.outstanding_bytes) != (0, 0):
            yield f"outstanding: {queue.outstanding} texts, {queue.outstanding_bytes} bytes"
        for name, expected in (("accepted", accepted), ("done", done)):
            if queue.totals[name] != expected:
                yield f"total {name} is {queue.totals[name]}, the jobs have {expected}"

    def _in_the_queue(self) -> Iterator[str]:
        lengths = {
            QUEUE: self._client.llen(QUEUE),
            UNACKED: self._client.hlen(UNACKED),
            "unacked_index": self._client.zcard("unacked_index"),
            "open jobs": self._client.zcard("embedmill:jobs"),
        }
        yield from (f"{name} still holds {count}" for name, count in lengths.items() if count)

    def _in_the_keys(self) -> Iterator[str]:
        opened = {f"job:{name}" for name, roster in self.rosters.items() if roster.counts["open"]}
        for key in map(bytes.decode, self._client.scan_iter()):
            ours = key.removeprefix("embedmill:")
            known = ours in BOUNDED or ":".join(ours.split(":")[:2]) in opened
            theirs = key.startswith(BINDINGS) or key.endswith(REPLIES)
            bounded = known if ours != key else theirs
            if not bounded and self._client.ttl(key) == -1:
                yield f"key {key} has neither TTL nor bound"

    def _in_the_store(self, in_order: bool) -> Iterator[str]:
        expected = set()
        for document_id, promise in self.promises.items():
            chunks = self._chunks(promise.text)
            names = [point_id(self._collection, document_id, n) for n in range(len(chunks))]
            expected.update(names)
            for name, chunk in zip(names, chunks, strict=True):
                difference = self._compare(name, chunk, promise, in_order)
                if difference:
                    where = self._last_seen(promise.job_id, promise.index)
                    yield f"{document_id} of job {promise.job_id}: {difference}; {where}"
        yield from (
            f"point {name} of {self.points[name].payload.get('document_id')} was never promised"
            for name in self.points.keys() - expected
        )

    def _chunks(self, text: str) -> list[str]:
        long = len(self._encoder.tokenize([text])[0]) > self._encoder.card.max_tokens
        return self._encoder.split(text) if long else [text]

    def _compare(self, name: str, chunk: str, promise: Promise, in_order: bool) -> str:
        point = self.points.get(name)
        if point is None:
            return f"point {name} is not in the store"
        if point.payload["text"] != chunk:
            return f"has the text {point.payload['text'][:40]!r}, not {chunk[:40]!r}"
        number = point.payload["sequence"]
        if in_order and not promise.after < number <= promise.sequence:
            return f"has number {number}, not {promise.sequence} (after {promise.after})"
        [vector] = encode_texts(self._encoder, [chunk])
        return "" if np.allclose(point.vector, vector, atol=1e-5) else "has another vector"

    def _last_seen(self, job_id: str, index: int) -> str:
        """The last line of a worker that names the job, and the places that hold its message."""
        holding = [
            name
            for name, values in (
                ("queue", self._client.lrange(QUEUE, 0, -1)),
                ("unacked", self._client.hvals(UNACKED)),
            )
            if any(job_id.encode() in value for value in values)
        ]
        lines = [
            f"{name}: {line}"
            for name, log in self._stack.logs().items()
            for line in log.splitlines()
            if job_id in line
        ]
        return f"index {index}, held by {holding or 'nobody'}, last lines {lines[-3:]}"


def _promise(accepted: Sequence[Acceptance]) -> Promise:
    """From all acceptances of a document, the oldest first."""
    sequence, text, job_id, index = accepted[-1]
    others = [number for number, other, _, _ in accepted if other != text]
    return Promise(text, sequence, max(others, default=0), job_id, index)


def _jobs(client: redis.Redis) -> list[str]:
    names = [key.decode().split(":") for key in client.scan_iter("embedmill:job:*", count=1000)]
    return [parts[2] for parts in names if len(parts) == 3]


def _read_points(url: str, collection: str) -> dict[str, Point]:
    client = QdrantClient(url=url, check_compatibility=False)
    try:
        found: dict[str, Point] = {}
        offset: Any = None
        while True:
            page, offset = client.scroll(
                collection, limit=1000, offset=offset, with_vectors=True, with_payload=True
            )
            for record in page:
                assert isinstance(record.vector, list)
                assert str(record.id) not in found
                found[str(record.id)] = Point(record.payload or {}, record.vector)  # type: ignore[arg-type]
            if offset is None:
                return found
    finally:
        client.close()
