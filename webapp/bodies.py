"""Request bodies: read within a limit, and parsed. Used inside `webapp` only."""

import orjson
from fastapi import Request

from tasks.errors import InvalidJson, InvalidRequest, RequestTooLarge
from webapp.limits import most_bytes

MAX_VALUES = 500_000
"""Of one body. Nothing else runs in the process while they are made: for 0.1 s with so many lists,
but for 3 s with those of 30 MB of `[],`, which would also take twenty times that memory."""


async def read_body(request: Request, limit: int) -> bytes:
    """All of it, within the limit and the one of its API key. Raises RequestTooLarge."""
    limit = most_bytes(request, limit)
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise RequestTooLarge(f"the body is larger than {limit} bytes: send several requests")
        parts.append(part)
    return b"".join(parts)


def parse_json(body: bytes, what: str) -> object:
    """Its value. Raises InvalidJson, RequestTooLarge."""
    if _count_openers(body) > MAX_VALUES:
        _refuse_many_values(body)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidJson(
            f"{what} is not JSON in UTF-8: {error.msg} at character {error.pos}"
        ) from error


def _count_openers(part: bytes) -> int:
    """Every value but the first comes after one of these, whatever else they are in texts."""
    return part.count(b",") + part.count(b"[") + part.count(b"{")


def _refuse_many_values(body: bytes) -> None:
    """Count what stands outside of strings, in a few passes at the speed of memory."""
    plain = body.replace(rb"\\", b"").replace(rb"\"", b"")
    many = plain.count(b'"') > 2 * MAX_VALUES  # which also bounds the parts of the split
    if many or _count_openers(b"".join(plain.split(b'"')[::2])) > MAX_VALUES:
        raise RequestTooLarge(
            f"more than {MAX_VALUES} values or names in JSON: send several requests",
            code="too_many_values",
        )


def parse_object(body: bytes, known: frozenset[str], what: str) -> dict[str, object]:
    """The fields of a JSON object that has no others. Raises InvalidJson, InvalidRequest."""
    fields = parse_json(body, "the body")
    if not isinstance(fields, dict):
        raise InvalidRequest(f"the body is an object with {what}")
    unknown = sorted(fields.keys() - known)
    if unknown:
        raise InvalidRequest(f"unknown field {unknown[0][:64]!r}", code="field_unknown")
    return fields
