"""Bodies that schemathesis does not know how to write; `SCHEMATHESIS_HOOKS` names this module."""

from typing import Any

import orjson
import schemathesis


@schemathesis.serializer("application/x-ndjson")
def write_lines(_: Any, value: Any) -> bytes:
    """A line for each item of a list; text as it is."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    rows = value if isinstance(value, list) else [value]
    return b"".join(orjson.dumps(row, default=str) + b"\n" for row in rows)
