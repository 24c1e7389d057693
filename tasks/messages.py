"""The values that pass between web, queue, workers and ledger; any package may import it."""

import hashlib
import uuid
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, NotRequired, TypedDict

TASK_NAME = "tasks.embed"
QUEUE = "embed"
HEADER = "embedmill"
"""The message header that holds a `Coordinates` mapping."""

VERSION = 1
"""Of the header and what a message of ours holds; a worker reads its own and those before."""

QUERY_TASK_NAME = "tasks.query"
QUERY_QUEUE = "query"
QUERY_HEADER = "embedmill_query"
"""The message header that holds a `QueryPlace` mapping."""

MESSAGE_DOCUMENTS = 64
"""Documents of one message at most: what a child upserts in one call."""
MESSAGE_BYTES = 256 * 1024
"""Bytes of one message's documents at most, unless a single one is larger."""

_POINT_NAMESPACE = uuid.UUID("7b1e1c0e-54a4-5a0c-9b61-9d6f2c8a4f10")


class OnLong(StrEnum):
    """What to do with a text that is longer than the model reads."""

    CHUNK = "chunk"
    TRUNCATE = "truncate"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Document:
    """One text with its identity; without an id of its own the id is the text's hash."""

    id: str
    text: str
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """What holds for all documents of a request."""

    collection: str
    on_long: OnLong = OnLong.CHUNK
    delete: bool = False
    """They are to be deleted; their texts are empty then."""


@dataclass(frozen=True, slots=True)
class PlacedDocument:
    """A document with its index in the job and its acceptance number.

    `uncontested`: whoever else may still write it writes the same. `overtaken_by` is the number of
    a deletion that was accepted later, 0 without one.
    """

    index: int
    sequence: int
    document: Document
    uncontested: bool = False
    overtaken_by: int = 0


class Coordinates(TypedDict):
    """Where a message's documents stand in their job: its header `HEADER`. With `delete` they are
    to be deleted."""

    v: int
    job: str
    start: int
    count: int
    delete: NotRequired[bool]


State = Literal["done", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one document ended. `points` counts the points written, none when it is `unchanged`;
    `code` and `detail` say why it failed, `attempts` how often it was tried alone."""

    index: int
    id: str
    state: State
    points: int = 0
    truncated: bool = False
    unchanged: bool = False
    code: str = ""
    detail: str = ""
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What the workers' model is: vectors of `dimension` floats of texts up to `max_tokens`."""

    name: str
    dimension: int
    max_tokens: int
    device: str


def text_id(text: str) -> str:
    """The id of a document that was given none: 32 hex digits of its text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def point_id(collection: str, document_id: str, chunk: int) -> str:
    """The UUID of a chunk's point: the same for the same document in the same collection."""
    return str(uuid.uuid5(_POINT_NAMESPACE, f"{collection}\0{document_id}\0{chunk}"))
