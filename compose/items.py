"""Documents on their way from a source to the web; only `compose` imports it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

REQUEST_BYTES = 4 * 1024 * 1024
"""Of one request at most, unless a single document is larger; the web takes 32 MiB by default."""


@dataclass(frozen=True, slots=True)
class Item:
    """A document as JSON, its own id if it has one, and where it comes from, for messages."""

    place: str
    body: bytes
    id: str | None = None


Batch = Sequence[Item]


def make_item(place: str, document: Mapping[str, Any]) -> Item:
    """An item of `{text, id?, metadata?}`; whether it is a valid one is for the web to say."""
    own_id = document.get("id")
    return Item(place, orjson.dumps(document), own_id if isinstance(own_id, str) else None)


def batches(items: Iterable[Item], documents: int) -> Iterator[list[Item]]:
    """Requests' worths: at most `documents` items, and no id twice, in the items' order."""
    batch: list[Item] = []
    seen: set[str] = set()
    size_bytes = 0
    for item in items:
        full = len(batch) == documents or size_bytes + len(item.body) > REQUEST_BYTES
        if batch and (full or item.id in seen):
            yield batch
            batch, seen, size_bytes = [], set(), 0
        batch.append(item)
        seen |= ids([item])
        size_bytes += len(item.body)
    if batch:
        yield batch


def ids(batch: Batch) -> frozenset[str]:
    """The ids that documents of the batch were given."""
    return frozenset(item.id for item in batch if item.id is not None)
