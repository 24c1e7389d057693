"""From documents to messages: slices of a job in Celery's own envelope. Any package may import it.

An envelope is what kombu's Redis transport would put into the queue for the same task, so that
stock producers, stock workers and Flower read the same queue.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import orjson
from celery import Celery
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
    Coordinates,
    Document,
    Options,
)

_BASE64 = Base64()


@dataclass(frozen=True, slots=True)
class Slice:
    """The documents of one message, their bytes, and their place in the job."""

    task_id: str
    place: Coordinates
    documents: Sequence[dict[str, Any]]
    sizes: Sequence[int]


def new_job_id() -> str:
    """A random id, which is also the id of the job's only task when it has one message."""
    return str(uuid4())


def slice_job(job_id: str, documents: Sequence[Document], *, split: bool = True) -> list[Slice]:
    """Cut a job into messages of bounded size; `split=False` makes it one, of any size."""
    rows = [_row(document) for document in documents]
    sizes = [len(orjson.dumps(row)) for row in rows]
    spans = list(_spans(sizes)) if split else [(0, len(rows))]
    return [
        Slice(
            task_id=job_id if len(spans) == 1 else f"{job_id}.{number}",
            place=Coordinates(v=1, job=job_id, start=start, count=stop - start),
            documents=rows[start:stop],
            sizes=sizes[start:stop],
        )
        for number, (start, stop) in enumerate(spans)
    ]


def build_submission(app: Celery, slices: Sequence[Slice], options: Options) -> Submission:
    """A job whose result nobody waits for in Celery's result store: the ledger has it."""
    return Submission(
        job_id=slices[0].place["job"],
        ids=[row["id"] for part in slices for row in part.documents],
        sizes=[size for part in slices for size in part.sizes],
        envelopes=[_message(app, part, options) for part in slices],
        collection=options.collection,
        on_long=options.on_long,
        queue=QUEUE,
    )


def envelope(message: Any, routing_key: str, **properties: Any) -> bytes:
    """kombu's Redis form of one of Celery's task messages (protocol 2)."""
    headers, own, body, _ = message
    content_type, content_encoding, data = serialization.dumps(body, serializer="json")
    wrapped = {
        "body": _BASE64.encode(data),
        "content-encoding": content_encoding,
        "content-type": content_type,
        "headers": headers,
        "properties": {
            **own,
            **properties,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": routing_key},
            "body_encoding": "base64",
            "delivery_tag": str(uuid4()),
        },
    }
    wrapped["properties"].setdefault("priority", 0)
    return dumps(wrapped).encode()


def arguments_repr(count: int) -> str:
    """What events and logs show instead of the texts."""
    return f"({count} document{'' if count == 1 else 's'})"


def _message(app: Celery, part: Slice, options: Options) -> bytes:
    message = app.amqp.create_task_message(
        part.task_id,
        TASK_NAME,
        (part.documents,),
        {"collection": options.collection, "on_long": str(options.on_long)},
        argsrepr=arguments_repr(len(part.documents)),
        kwargsrepr=f"{{'collection': {options.collection!r}}}",
        ignore_result=True,
    )
    message.headers[HEADER] = part.place
    return envelope(message, QUEUE)


def _row(document: Document) -> dict[str, Any]:
    row: dict[str, Any] = {"id": document.id, "text": document.text}
    return row if document.metadata is None else {**row, "metadata": document.metadata}


def _spans(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    start, held = 0, 0
    for index, size in enumerate(sizes):
        full = index - start == MESSAGE_DOCUMENTS or held + size > MESSAGE_BYTES
        if full and index > start:
            yield start, index
            start, held = index, 0
        held += size
    if start < len(sizes):
        yield start, len(sizes)
