"""How schemathesis sends lines of JSON, a type it does not know: SCHEMATHESIS_HOOKS names this."""

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def send_lines(_: schemathesis.SerializationContext, value: object) -> bytes:
    """Strings, as the schema has it, and whatever else it makes up."""
    return value if isinstance(value, bytes) else str(value).encode(errors="replace")
