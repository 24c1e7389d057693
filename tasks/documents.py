"""What a document may be: the one place where what users send is checked. Any package may import.

HTTP, `embed.delay` and messages of foreign producers all come through `parse_documents`.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import orjson

from tasks.errors import InvalidDocument, InvalidRequest, RequestTooLarge
from tasks.messages import Document, OnLong, Options, text_id
from tasks.settings import Settings

MAX_ID_CHARACTERS = 512
MAX_METADATA_DEPTH = 16
_FIELDS = frozenset({"id", "text", "metadata"})
COLLECTION_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$"
_COLLECTION = re.compile(COLLECTION_PATTERN)


def parse_documents(raw: object, settings: Settings) -> list[Document]:
    """Documents from a text, a mapping `{text, id?, metadata?}` or a list of these.

    The same text twice without an id is the same document twice, which is harmless; the same id
    twice is an error, because which text should win?
    Raises InvalidDocument with the index of the first offender, InvalidRequest.
    """
    items = raw if isinstance(raw, (list, tuple)) else [raw]
    if not items:
        raise InvalidRequest("there is no document in the request", code="documents_empty")
    documents = [_document(item, index, settings) for index, item in enumerate(items)]
    _refuse_repeated_ids(items, documents)
    return documents


def parse_ids(raw: object) -> list[str]:
    """Ids of documents, each once. Raises InvalidDocument with the index of the first offender,
    InvalidRequest."""
    items = raw if isinstance(raw, (list, tuple)) else [raw]
    if not items:
        raise InvalidRequest("there is no id in the request", code="ids_empty")
    return list(dict.fromkeys(_id(item, index) for index, item in enumerate(items)))


def parse_options(collection: object, on_long: object, settings: Settings) -> Options:
    """Options with defaults filled in. Raises InvalidRequest."""
    name = settings.collection if collection is None else collection
    if not isinstance(name, str) or not _COLLECTION.fullmatch(name):
        raise InvalidRequest(
            "a collection's name has 1 to 128 letters, digits, '_', '-' or '.', "
            "and does not begin with '-' or '.'",
            code="collection_invalid",
        )
    try:
        return Options(name, OnLong.CHUNK if on_long is None else OnLong(str(on_long)))
    except ValueError as error:
        known = ", ".join(OnLong)
        raise InvalidRequest(f"on_long is one of {known}", code="on_long_invalid") from error


def refuse_oversize(sizes: Sequence[int], settings: Settings) -> None:
    """Raise RequestTooLarge for more than one request may hold, or an empty queue could take."""
    limit = min(settings.max_request_documents, settings.queue_limit)
    if len(sizes) > limit:
        raise RequestTooLarge(
            f"{len(sizes)} documents in one request, the limit is {limit}: send several requests",
            code="too_many_documents",
        )
    if sum(sizes) > settings.queue_bytes:
        raise RequestTooLarge(
            f"{sum(sizes)} bytes in one request, the whole queue holds {settings.queue_bytes}"
        )


def _document(item: object, index: int, settings: Settings) -> Document:
    if isinstance(item, str):
        text = _text(item, index, settings)
        return Document(text_id(text), text)
    if not isinstance(item, dict):
        raise InvalidDocument(
            "a document is a text or an object with a text", index=index, code="document_invalid"
        )
    unknown = sorted(str(key) for key in item.keys() - _FIELDS)
    if unknown:
        raise InvalidDocument(
            f"unknown field {unknown[0][:64]!r}", index=index, code="field_unknown"
        )
    text = _text(item.get("text"), index, settings)
    metadata = _metadata(item.get("metadata"), index, settings)
    given = item.get("id")
    return Document(text_id(text) if given is None else _id(given, index), text, metadata)


def _text(value: object, index: int, settings: Settings) -> str:
    if not isinstance(value, str):
        raise InvalidDocument("the text must be a string", index=index, code="text_invalid")
    if not value or value.isspace():
        raise InvalidDocument("the text is empty", index=index, code="text_empty")
    size = len(_encode(value, "text", index))
    if size > settings.max_text_bytes:
        raise InvalidDocument(
            f"the text has {size} bytes, the limit is {settings.max_text_bytes}",
            index=index,
            code="text_too_large",
        )
    return value


def _id(value: object, index: int) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidDocument("an id is a string of text", index=index, code="id_invalid")
    if len(value) > MAX_ID_CHARACTERS:
        raise InvalidDocument(
            f"the id has {len(value)} characters, the limit is {MAX_ID_CHARACTERS}",
            index=index,
            code="id_too_long",
        )
    _encode(value, "id", index)
    return value


def _encode(value: str, name: str, index: int) -> bytes:
    if "\0" in value:
        raise InvalidDocument(
            f"the {name} contains a NUL character", index=index, code=f"{name}_invalid"
        )
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise InvalidDocument(
            f"the {name} is not valid Unicode", index=index, code=f"{name}_invalid"
        ) from error


def _metadata(value: object, index: int, settings: Settings) -> dict[str, Any] | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise InvalidDocument("metadata is an object", index=index, code="metadata_invalid")
    _check_metadata(value, index)
    try:
        size = len(orjson.dumps(value))
    except TypeError as error:
        raise InvalidDocument(
            f"metadata is not JSON: {error}", index=index, code="metadata_invalid"
        ) from error
    if size > settings.max_metadata_bytes:
        raise InvalidDocument(
            f"the metadata has {size} bytes, the limit is {settings.max_metadata_bytes}",
            index=index,
            code="metadata_too_large",
        )
    return value


def _check_metadata(value: object, index: int) -> None:
    """Walk without recursion: depth, NUL characters, numbers that JSON cannot say."""
    level: list[object] = [value]
    for _ in range(MAX_METADATA_DEPTH):
        level = [inner for outer in level for inner in _inner(outer, index)]
        if not level:
            return
    raise InvalidDocument(
        f"the metadata is nested more than {MAX_METADATA_DEPTH} levels deep",
        index=index,
        code="metadata_too_deep",
    )


def _inner(value: object, index: int) -> list[object]:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    if isinstance(value, (list, tuple)):
        return list(value)
    if isinstance(value, str):
        _encode(value, "metadata", index)
    elif isinstance(value, float) and not math.isfinite(value):
        raise InvalidDocument(
            f"metadata holds {value}, which JSON cannot say", index=index, code="metadata_invalid"
        )
    return []


def _refuse_repeated_ids(items: Sequence[object], documents: Sequence[Document]) -> None:
    """Also an id that is given and the hash of another text; two hashes are the same text."""
    if len({document.id for document in documents}) == len(documents):
        return
    seen: dict[str, bool] = {}
    for index, (item, document) in enumerate(zip(items, documents, strict=True)):
        given = isinstance(item, dict) and item.get("id") is not None
        if document.id in seen and (given or seen[document.id]):
            raise InvalidDocument(
                f"the id {document.id[:64]!r} stands twice in this request",
                index=index,
                code="id_duplicate",
            )
        seen[document.id] = given
