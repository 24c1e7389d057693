"""What requests of a load test say: texts of a mix or of the user's file, as bodies without end."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, cycle, islice
from random import Random
from typing import Any, Literal

import orjson

from compose.corpus import reference_items
from compose.errors import InputError
from compose.reading import Sources

Mix = Literal["short", "long", "mixed"]
MIXES: Mapping[Mix, range] = {
    "short": range(40, 121),
    "long": range(300, 701),
    "mixed": range(40, 701),
}
"""Characters of the built-in texts: English of some 3.3 characters a token, none longer than the
default model reads."""
FILE_TEXTS = 10_000
"""Of a file at most: they are held in memory."""
SEED = 6


def built_in_texts(mix: Mix) -> list[str]:
    """Paragraphs of the Python language reference, each once, in an order that tells nothing.

    Raises InputError where this Python has none.
    """
    texts = sorted({str(orjson.loads(item.body)["text"]) for item in reference_items()})
    chosen = [text for text in texts if len(text) in MIXES[mix]]
    Random(SEED).shuffle(chosen)
    return chosen


def file_texts(name: str) -> list[str]:
    """The first texts of a file that `embedmill ingest` could read. Raises InputError."""
    items = islice(Sources([name]), FILE_TEXTS)
    texts = [str(orjson.loads(item.body)["text"]) for item in items]
    if not texts:
        raise InputError(f"there is no text in {name}")
    return texts


@dataclass(frozen=True, slots=True)
class Target:
    """A route, the fields that all its requests have, and the name of the field with the texts;
    its answers have the field `sign`."""

    path: str
    field: str
    fields: Mapping[str, Any]
    sign: str

    def bodies(self, texts: Sequence[str], request_texts: int, first: int) -> Iterator[bytes]:
        """Each text ends in a number, from `first` on, so that none is another's duplicate: what
        is known already might be less work."""
        numbered = (f"{text} {number}" for text, number in zip(cycle(texts), count(first)))
        while True:
            chosen = list(islice(numbered, request_texts))
            yield orjson.dumps({self.field: chosen, **self.fields})


def embed_target(collection: str) -> Target:
    """Documents: accepted, embedded, stored."""
    return Target("/embed", "texts", {"collection": collection}, "job_id")


def embeddings_target(model: str) -> Target:
    """Queries: vectors at once."""
    fields = {"model": model, "encoding_format": "base64"}
    return Target("/v1/embeddings", "input", fields, "data")
