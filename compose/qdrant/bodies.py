"""Request bodies: strict JSON, bounded nesting, no field that would be ignored.

Imported by the modules that read one kind of request each (points, filters, requests).
"""

from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, TypeAdapter, ValidationError

from compose.qdrant.errors import MalformedError, UnsupportedError

# The engine's log cannot be read back when an entry nests deeper than 128 levels, and then the
# whole collection does not load (qdrant-edge-py 0.9.0: 122 levels of payload load, 123 do not).
MAX_NESTING = 64
SHOWN_ERRORS = 3

Body = TypeVar("Body")


def parse_json(body: bytes) -> Any:
    """Parse strict JSON: no NaN, no infinity, no lone surrogates.

    Raises:
        MalformedError: it is not JSON.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedError(f"Format error in JSON body: {error}") from error


def parse_body(adapter: TypeAdapter[Body], body: bytes) -> Body:
    """Validate a body against one of Qdrant's own models, without coercing types.

    Raises:
        MalformedError: not JSON, nested too deeply, an unknown field or a wrong type.
    """
    check_nesting(parse_json(body))
    try:
        return adapter.validate_json(body, strict=True)
    except ValidationError as error:
        raise MalformedError(f"Format error in JSON body: {describe(error)}") from error


def describe(error: ValidationError) -> str:
    """The first few complaints, each with the path of its field."""
    complaints = error.errors(include_url=False, include_input=False)[:SHOWN_ERRORS]
    return "; ".join(f"{'.'.join(map(str, c['loc'])) or 'body'}: {c['msg']}" for c in complaints)


def check_nesting(value: object) -> None:
    """
    Raises:
        MalformedError: objects and arrays stand in one another more than `MAX_NESTING` deep.
    """
    if not nests_within(value, MAX_NESTING):
        raise MalformedError(f"Format error in JSON body: nested deeper than {MAX_NESTING} levels")


def nests_within(value: object, levels: int) -> bool:
    """Whether at most `levels` objects and arrays stand in one another."""
    if isinstance(value, dict):
        return levels > 0 and all(nests_within(item, levels - 1) for item in value.values())
    if isinstance(value, list):
        return levels > 0 and all(nests_within(item, levels - 1) for item in value)
    return True


def refuse_other_fields(body: BaseModel, *supported: str) -> None:
    """Refuse fields that a full Qdrant knows and this server would ignore.

    Raises:
        UnsupportedError: a field outside `supported` is set to something.
    """
    for name in sorted(body.model_fields_set - set(supported)):
        if getattr(body, name) is not None:
            raise UnsupportedError(f"`{name}` in {type(body).__name__}")
