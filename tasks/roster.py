"""Which documents a job took in and how each of them ended: reading only. Any package may import.

A job keeps its ids as one JSON array, and of its endings those alone that are neither `open` (their
index is a field of the `open` hash) nor just `done`. All of it expires with the job.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

import orjson
import redis

from tasks.broker import redis_errors, text
from tasks.errors import JobNotFound
from tasks.ledger import job_key
from tasks.settings import Settings

Ending = Literal["open", "done", "failed", "cancelled"]

SETTLED: tuple[Ending, ...] = ("done", "failed", "cancelled")
_ENDINGS: Mapping[int, Ending] = {ord("f"): "failed", ord("c"): "cancelled"}


@dataclass(frozen=True, slots=True)
class Entry:
    """A document of a job; `sequence` is its acceptance number. `unchanged`: it is done, and the
    store has an older acceptance of the same."""

    index: int
    id: str
    sequence: int
    ending: Ending
    unchanged: bool = False


@dataclass(frozen=True, slots=True)
class Roster:
    """A job's documents in their order, and its counts and first errors of the same moment."""

    job_id: str
    collection: str
    accepted: int
    counts: Mapping[Ending, int]
    entries: Sequence[Entry]
    errors: Sequence[Mapping[str, Any]]


def read_roster(client: redis.Redis, job_id: str, settings: Settings) -> Roster:
    """Everything in one transaction. Raises JobNotFound, BrokerDown."""
    job = job_key(job_id)
    with redis_errors(settings.broker_url):
        pipe = client.pipeline(transaction=True)
        pipe.hgetall(job)
        pipe.get(f"{job}:ids")
        pipe.get(f"{job}:endings")
        pipe.hkeys(f"{job}:open")
        pipe.lrange(f"{job}:errors", 0, -1)
        values, ids, endings, opened, errors = pipe.execute()
    if not values:
        raise JobNotFound(f"there is no job {job_id!r}, or it was settled long ago")
    fields = {text(name): text(value) for name, value in values.items()}
    first, accepted = int(fields["sequence"]), int(fields["accepted"])
    numbers = orjson.loads(fields["numbers"]) if "numbers" in fields else count(first)
    still_open = {int(index) for index in opened}
    settled = {ending: int(fields.get(ending, 0)) for ending in SETTLED}
    return Roster(
        job_id=job_id,
        collection=fields["collection"],
        accepted=accepted,
        counts={"open": accepted - sum(settled.values()), **settled},
        entries=[
            Entry(index, document_id, number, *_ending(index, endings or b"", still_open))
            for index, (document_id, number) in enumerate(
                zip(orjson.loads(ids or b"[]"), numbers, strict=False)
            )
        ],
        errors=[orjson.loads(row) for row in errors],
    )


def _ending(index: int, endings: bytes, still_open: set[int]) -> tuple[Ending, bool]:
    """How it ended, and whether it was unchanged."""
    if index in still_open:
        return "open", False
    ending = endings[index] if index < len(endings) else 0
    return _ENDINGS.get(ending, "done"), ending == ord("u")
