"""From documents to messages: slices of a job in Celery's own envelope. Any package may import it.

An envelope is what kombu's Redis transport would put into the queue for the same task, so that
stock producers, stock workers and Flower read the same queue.
"""

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from uuid import uuid4

import orjson
from celery import Celery
from celery.utils.nodenames import anon_nodename
from kombu import serialization
from kombu.transport.virtual.base import Base64
from kombu.utils.json import dumps

from tasks.ledger import Submission
from tasks.messages import (
    HEADER,
    MESSAGE_BYTES,
    MESSAGE_DOCUMENTS,
    QUEUE,
    TASK_NAME,
    VERSION,
    Coordinates,
    Document,
    Options,
)

_BASE64 = Base64()


@dataclass(frozen=True, slots=True)
class Slice:
    """The documents of one message, as they are and in JSON, and their place in the job."""

    task_id: str
    place: Coordinates
    documents: Sequence[dict[str, Any]]
    encoded: Sequence[bytes]

    @property
    def sizes(self) -> list[int]:
        """Bytes of each document, as limits count them."""
        return [len(document) for document in self.encoded]


def new_job_id() -> str:
    """A random id, which is also the id of the job's only task when it has one message."""
    return str(uuid4())


def slice_job(job_id: str, documents: Sequence[Document], *, split: bool = True) -> list[Slice]:
    """Cut a job into messages of bounded size; `split=False` makes it one, of any size."""
    return _slice(Coordinates(v=VERSION, job=job_id, start=0, count=0), map(_row, documents), split)


def slice_deletion(job_id: str, ids: Sequence[str]) -> list[Slice]:
    """The same of documents that are to be deleted. Their rows have no text, which a worker that
    knows of no deletions refuses."""
    place = Coordinates(v=VERSION, job=job_id, start=0, count=0, delete=True)
    return _slice(place, ({"id": name} for name in ids), split=True)


def _slice(place: Coordinates, documents: Iterable[dict[str, Any]], split: bool) -> list[Slice]:
    rows, job_id = list(documents), place["job"]
    encoded = [orjson.dumps(row) for row in rows]
    sizes = list(map(len, encoded))
    spans = cut_into_spans(sizes, MESSAGE_DOCUMENTS, MESSAGE_BYTES) if split else [(0, len(rows))]
    return [
        Slice(
            task_id=job_id if len(spans) == 1 else f"{job_id}.{number}",
            place={**place, "start": start, "count": stop - start},
            documents=rows[start:stop],
            encoded=encoded[start:stop],
        )
        for number, (start, stop) in enumerate(spans)
    ]


def build_submission(app: Celery, slices: Sequence[Slice], options: Options) -> Submission:
    """A job whose result nobody waits for in Celery's result store: the ledger has it."""
    return Submission(
        job_id=slices[0].place["job"],
        ids=[row["id"] for part in slices for row in part.documents],
        sizes=[size for part in slices for size in part.sizes],
        contents=[name for part in slices for name in digest_contents(part.encoded, options)],
        envelopes=[_message(app, part, options) for part in slices],
        collection=options.collection,
        on_long=options.on_long,
        queue=QUEUE,
        delete=options.delete,
    )


def digest_contents(encoded: Sequence[bytes], options: Options) -> list[str]:
    """What tells one content from another: the document in JSON, and how it is embedded."""
    how = options.on_long.encode()
    return [hashlib.blake2b(row, digest_size=8, key=how).hexdigest() for row in encoded]


def envelope(message: Any, routing_key: str, **properties: Any) -> bytes:
    """kombu's Redis form of one of Celery's task messages (protocol 2)."""
    headers, own, body, _ = message
    content_type, content_encoding, data = serialization.dumps(body, serializer="json")
    wrapped = {
        "body": _BASE64.encode(data),
        "content-encoding": content_encoding,
        "content-type": content_type,
        "headers": headers,
        "properties": {**own, **properties, **_delivery(routing_key)},
    }
    wrapped["properties"].setdefault("priority", 0)
    return dumps(wrapped).encode()


def _delivery(routing_key: str) -> dict[str, Any]:
    return {
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": routing_key},
        "body_encoding": "base64",
        "delivery_tag": str(uuid4()),
    }


def arguments_repr(count: int) -> str:
    """What events and logs show instead of the texts."""
    return describe_count(count, "document")


def describe_count(count: int, what: str) -> str:
    """As in "(2 texts)"."""
    return f"({count} {what}{'' if count == 1 else 's'})"


@cache
def _template(app: Celery) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Headers, properties and embedded options that Celery gives every message of our task."""
    message = app.amqp.create_task_message(
        "", TASK_NAME, (), {}, argsrepr="", kwargsrepr="", ignore_result=True
    )
    return message.headers, message.properties, message.body[2]


def _message(app: Celery, part: Slice, options: Options) -> bytes:
    """The same as `envelope` of a message that Celery makes, from parts that are there already."""
    headers, properties, embedded = _template(app)
    keywords = {"collection": options.collection, "on_long": options.on_long}
    body = b"[[[%b]],%b,%b]" % (
        b",".join(part.encoded),
        orjson.dumps(keywords),
        orjson.dumps(embedded),
    )
    wrapped = {
        "body": base64.b64encode(body).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            **headers,
            "id": part.task_id,
            "root_id": part.task_id,
            "argsrepr": arguments_repr(len(part.encoded)),
            "kwargsrepr": f"{{'collection': {options.collection!r}}}",
            "origin": anon_nodename(),  # the process that sends it, which a fork changes
            HEADER: part.place,
        },
        "properties": {
            **properties,
            "correlation_id": part.task_id,
            "priority": 0,
            **_delivery(QUEUE),
        },
    }
    return orjson.dumps(wrapped)


def _row(document: Document) -> dict[str, Any]:
    row: dict[str, Any] = {"id": document.id, "text": document.text}
    return row if document.metadata is None else {**row, "metadata": document.metadata}


def cut_into_spans(sizes: Sequence[int], most: int, most_bytes: int) -> list[tuple[int, int]]:
    """Runs of at most `most` items and `most_bytes`, unless one item has more: start and stop."""
    return list(_spans(sizes, most, most_bytes))


def _spans(sizes: Sequence[int], most: int, most_bytes: int) -> Iterator[tuple[int, int]]:
    start, held = 0, 0
    for index, size in enumerate(sizes):
        full = index - start == most or held + size > most_bytes
        if full and index > start:
            yield start, index
            start, held = index, 0
        held += size
    if start < len(sizes):
        yield start, len(sizes)
