"""Names of points and collections: which texts and numbers Qdrant takes for them.

Imported wherever a request names one.
"""

import re
from uuid import UUID

from compose.qdrant.errors import MalformedError

PointId = int | UUID | str  # as the engine's own alias

UINT64 = range(2**64)
UUID_TEXT = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
MAX_NAME_CHARACTERS = 255
NAME_WITHOUT = frozenset('<>:"/\\|?*\0\x1f')


def parse_point_id(value: object) -> PointId:
    """Check an unsigned 64-bit integer or a UUID; it is returned as it was given.

    Raises:
        MalformedError: anything else.
    """
    if type(value) is str and UUID_TEXT.fullmatch(value):
        return value
    if type(value) is int and value in UINT64:
        return value
    if isinstance(value, UUID):  # pydantic has already read it
        return value
    raise MalformedError(
        f"Format error in JSON body: value {str(value)[:100]!r} is not a valid point ID,"
        " valid values are either an unsigned integer or a UUID"
    )


def check_collection_name(name: str) -> str:
    """
    Raises:
        MalformedError: empty, over 255 characters, or with a character Qdrant forbids.
    """
    if not 0 < len(name) <= MAX_NAME_CHARACTERS:
        raise MalformedError(
            f"Wrong input: collection name must be 1 to {MAX_NAME_CHARACTERS} characters long"
        )
    if forbidden := sorted(NAME_WITHOUT & set(name)):
        raise MalformedError(f"Wrong input: collection name cannot contain {forbidden}")
    return name
