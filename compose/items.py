"""Documents on their way from a source to the web; only `compose` imports it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from tasks.messages import text_id

REQUEST_BYTES = 4 * 1024 * 1024
"""Of one request at most, unless a single document is larger; the web takes 32 MiB by default."""


@dataclass(frozen=True, slots=True)
class Item:
    """A document as JSON, its own id if it has one, and where it comes from, for messages.

    `identity` tells whether two items are the same document: the id, or else the text's. `number`
    is its place in the whole input, from 0.
    """

    place: str
    body: bytes
    id: str | None
    identity: str
    number: int = 0


Batch = Sequence[Item]


def make_item(place: str, document: Mapping[str, Any]) -> Item:
    """An item of `{text, id?, metadata?}`; whether it is a valid one is for the web to say."""
    given = document.get("id")
    own_id = given if isinstance(given, str) else None
    identity = own_id if own_id is not None else text_id(str(document.get("text")))
    return Item(place, orjson.dumps(document), own_id, identity)


def batches(items: Iterable[Item], documents: int) -> Iterator[list[Item]]:
    """Requests' worths in the items' order: at most `documents`, no id twice, and no gap in the
    numbers, so that a run that goes on makes the same requests."""
    batch: list[Item] = []
    seen: set[str] = set()
    size_bytes = 0
    for item in items:
        full = len(batch) == documents or size_bytes + len(item.body) > REQUEST_BYTES
        gap = batch and item.number > batch[-1].number + 1
        if batch and (full or gap or item.id in seen):
            yield batch
            batch, seen, size_bytes = [], set(), 0
        batch.append(item)
        if item.id is not None:
            seen.add(item.id)
        size_bytes += len(item.body)
    if batch:
        yield batch


def identities(batch: Batch) -> frozenset[str]:
    """Which documents the batch has."""
    return frozenset(item.identity for item in batch)
