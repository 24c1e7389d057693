"""`Idempotency-Key`: the same request again is the same job. Used inside `webapp` only.

A key belongs to whoever sent it: the same one under another API key is another one.
"""

import hashlib

from fastapi import Request

from tasks.errors import InvalidRequest, KeyReused, RequestRepeated
from tasks.marks import Mark, mark_key

HEADER = "Idempotency-Key"
MAX_CHARACTERS = 255
_REUSED = f"this {HEADER} belongs to an earlier request that said something else"


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
        raise KeyReused(_REUSED) from error
    return found[2]
