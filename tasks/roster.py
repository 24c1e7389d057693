"""Which documents a job took in and how each of them ended: reading only. Any package may import.

A job keeps its ids as one JSON array, and of its endings those alone that are neither `open` (their
index is a field of the `open` hash) nor just `done`. All of it expires with the job.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, Literal

import orjson
import redis

from tasks.broker import redis_errors, text
from tasks.errors import JobNotFound
from tasks.ledger import job_key
from tasks.settings import Settings

Ending = Literal["open", "done", "failed", "cancelled"]

PAGE_JOBS = 1000
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
    deletes: bool = False
    """Its documents were to be deleted."""


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
        deletes="delete" in fields,
    )


def read_number(client: redis.Redis, job_id: str, index: int, settings: Settings) -> int:
    """The acceptance number of one document; 0 where its job has expired. Raises BrokerDown."""
    with redis_errors(settings.broker_url):
        sequence, numbers = client.hmget(job_key(job_id), "sequence", "numbers")
    if numbers:
        return int(orjson.loads(numbers)[index])
    return int(sequence) + index if sequence else 0


def find_deletions(client: redis.Redis, collection: str, settings: Settings) -> dict[str, int]:
    """The number of the last deletion of each document that has begun, as far as its job is known.

    Looks at all jobs: for audits. Raises BrokerDown.
    """
    found: dict[str, int] = {}
    with redis_errors(settings.broker_url):
        for job_id in _deleting(client, collection):
            for entry in _deleted(client, job_id, settings):
                found[entry.id] = max(entry.sequence, found.get(entry.id, 0))
    return found


def _deleting(client: redis.Redis, collection: str) -> Iterator[str]:
    """Ids of the jobs that have begun to delete documents of the collection."""
    start = job_key("")
    names = (text(key) for key in client.scan_iter(f"{start}*", count=PAGE_JOBS))
    jobs = (name for name in names if ":" not in name.removeprefix(start))
    while page := list(islice(jobs, PAGE_JOBS)):
        pipe = client.pipeline(transaction=False)
        for job in page:
            pipe.hmget(job, "collection", "delete", "started_at")
        for job, (name, deletes, started_at) in zip(page, pipe.execute(), strict=True):
            if deletes and started_at and text(name) == collection:
                yield job.removeprefix(start)


def _deleted(client: redis.Redis, job_id: str, settings: Settings) -> Sequence[Entry]:
    try:
        entries = read_roster(client, job_id, settings).entries
    except JobNotFound:  # it has expired since it was listed
        return ()
    return [entry for entry in entries if entry.ending in ("done", "open")]


def _ending(index: int, endings: bytes, still_open: set[int]) -> tuple[Ending, bool]:
    """How it ended, and whether it was unchanged."""
    if index in still_open:
        return "open", False
    ending = endings[index] if index < len(endings) else 0
    return _ENDINGS.get(ending, "done"), ending == ord("u")
