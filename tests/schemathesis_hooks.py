"""Bodies that schemathesis does not know how to write; `SCHEMATHESIS_HOOKS` names this module."""

import json
from typing import Any

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def write_lines(_: Any, value: Any) -> bytes:
    """A line for each item of a list; text as it is."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    rows = value if isinstance(value, list) else [value]
    return b"".join(json.dumps(row, default=str).encode() + b"\n" for row in rows)
