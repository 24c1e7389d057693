"""Bodies that schemathesis does not know how to write; `SCHEMATHESIS_HOOKS` names this module."""

import json
from typing import Any

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def write_lines(_: Any, value: Any) -> bytes:
    """Text as it is; all else, which is wrong there, as a line of JSON."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    return json.dumps(value, default=str).encode()
