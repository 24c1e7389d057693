"""`Idempotency-Key`: the same request again is the same job. Used inside `webapp` only.

A key belongs to whoever sent it: the same one under another API key is another one.
"""

import hashlib
from dataclasses import dataclass

from fastapi import Request

from tasks.errors import InvalidRequest, KeyReused, RequestRepeated
from tasks.marks import Mark, mark_key
from tasks.messages import Options

HEADER = "Idempotency-Key"
MAX_CHARACTERS = 255
REUSED = f"this {HEADER} belongs to an earlier request that said something else"


def read_key(request: Request) -> str | None:
    """Where the request's mark is in Redis; None without a key. Raises InvalidRequest."""
    given = request.headers.get(HEADER)
    if given is None:
        return None
    if not given.strip() or len(given) > MAX_CHARACTERS:
        raise InvalidRequest(
            f"{HEADER} has 1 to {MAX_CHARACTERS} characters", code="idempotency_key_invalid"
        )
    return mark_key(request.headers.get("Authorization", ""), given)


def mark_body(key: str, query: bytes, body: bytes, job_id: str, ttl_s: int) -> Mark:
    """The mark of a body that is accepted as that job."""
    digest = hashlib.sha256(query + b"\0" + body).hexdigest()
    return Mark(key, before="", after=f"body {digest} {job_id}", ttl_s=ttl_s)


def repeated_job(own: Mark, error: RequestRepeated) -> str:
    """The job as which the same body was accepted before. Raises KeyReused."""
    kind, digest = own.after.split(" ")[:2]
    found = error.found.split(" ")
    if found[:2] != [kind, digest]:
        raise KeyReused(REUSED) from error
    return found[2]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far uploads under one key have come: all of its lines from `first_line` up to
    `next_line` are accepted, as so many documents. `chain` is a digest of them, which begins with
    `options`, the digest of what holds for all."""

    options: str
    first_line: int
    next_line: int
    documents: int
    chain: str


def begin_upload(found: str, options: Options, from_line: int) -> Progress:
    """Where an upload whose body begins with line `from_line` goes on after the mark it found.

    Raises KeyReused for another request's mark, InvalidRequest for a line in the middle.
    """
    digest = hashlib.sha256(f"{options.collection}\0{options.on_long}".encode()).hexdigest()
    if not found:
        return Progress(digest, from_line, from_line, 0, digest)
    kind, *fields = found.split(" ")
    if kind != "lines" or fields[0] != digest:
        raise KeyReused(REUSED)
    first, following, documents = map(int, fields[1:4])
    if from_line not in {first, following}:
        raise InvalidRequest(
            f"the upload under this {HEADER} began with line {first} and goes on with line "
            f"{following}: send it from one of these",
            code="from_line_invalid",
        )
    return Progress(digest, first, following, documents, fields[4])


def mark_progress(key: str, found: str, progress: Progress, ttl_s: int) -> Mark:
    """The mark of a batch: only one upload at a time goes on from what was found."""
    numbers = f"{progress.first_line} {progress.next_line} {progress.documents}"
    return Mark(key, found, f"lines {progress.options} {numbers} {progress.chain}", ttl_s)
