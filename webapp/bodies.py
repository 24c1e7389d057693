"""Request bodies: read within a limit, and parsed. Used inside `webapp` only."""

import orjson
from fastapi import Request

from tasks.errors import InvalidJson, InvalidRequest, RequestTooLarge
from webapp.limits import most_bytes


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
    """Its value. Raises InvalidJson."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidJson(
            f"{what} is not JSON in UTF-8: {error.msg} at character {error.pos}"
        ) from error


def parse_object(body: bytes, known: frozenset[str], what: str) -> dict[str, object]:
    """The fields of a JSON object that has no others. Raises InvalidJson, InvalidRequest."""
    fields = parse_json(body, "the body")
    if not isinstance(fields, dict):
        raise InvalidRequest(f"the body is an object with {what}")
    unknown = sorted(fields.keys() - known)
    if unknown:
        raise InvalidRequest(f"unknown field {unknown[0][:64]!r}", code="field_unknown")
    return fields
