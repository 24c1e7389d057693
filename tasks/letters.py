"""Dead letters: failed documents, kept whole with what befell them. Any package may import it.

They are a Redis stream; a letter's stream id tells when it was written, in milliseconds.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson
import redis

from tasks.broker import text
from tasks.ledger import DEAD
from tasks.messages import Options, Outcome, PlacedDocument


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A document that failed; `at` in Unix seconds."""

    id: str
    at: float
    job_id: str
    index: int
    document_id: str
    text: str
    metadata: dict[str, Any] | None
    collection: str
    on_long: str
    code: str
    detail: str
    attempts: int


def write_letter(job_id: str, placed: PlacedDocument, options: Options, outcome: Outcome) -> bytes:
    """What the settle script keeps of a failed document."""
    return orjson.dumps(
        {
            "job_id": job_id,
            "index": placed.index,
            "document_id": placed.document.id,
            "text": placed.document.text,
            "metadata": placed.document.metadata,
            "collection": options.collection,
            "on_long": options.on_long,
            "code": outcome.code,
            "detail": outcome.detail[:1000],
            "attempts": outcome.attempts,
        }
    )


def read_letters(client: redis.Redis) -> Iterator[DeadLetter]:
    """All of them, oldest first. Raises redis' own errors."""
    entries: Any = client.xrange(DEAD)
    for entry_id, fields in entries:
        name = text(entry_id)
        row = orjson.loads(fields[b"letter"])
        yield DeadLetter(id=name, at=int(name.partition("-")[0]) / 1000, **row)
