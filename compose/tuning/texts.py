"""The texts that a machine is tuned with: a sample of the user's, else the Python reference.

Only `compose.tune` imports it.
"""

from collections.abc import Iterable, Sequence
from random import Random

import orjson

from compose.corpus import reference_items
from compose.errors import InputError
from compose.items import Item
from compose.reading import Sources
from tasks.documents import parse_documents
from tasks.errors import InvalidDocument
from tasks.settings import Settings

SAMPLE = 2000
SAMPLE_BYTES = 32 * 1024 * 1024
READ = 100_000
"""Documents at most, of which the sample is taken."""
SEED = 6


def read_texts(names: Sequence[str], settings: Settings) -> list[str]:
    """A sample in random order, always the same, so that any part of it is a fair one.

    Raises InputError for files that cannot be read, hold no text, or one that would be refused.
    """
    chosen = _sample(Sources(names) if names else reference_items())
    if not chosen:
        raise InputError(f"no text in {', '.join(names)}")
    texts: list[str] = []
    size = 0
    for item in chosen:
        text = _text(item, settings)
        size += len(text)
        if texts and size > SAMPLE_BYTES:
            break
        texts.append(text)
    return texts


def _sample(items: Iterable[Item]) -> list[Item]:
    """Each item with the same chance, in one pass and bounded memory."""
    random, chosen = Random(SEED), list[Item]()
    for number, item in enumerate(items):
        if number == READ:
            break
        if number < SAMPLE:
            chosen.append(item)
        elif (place := random.randrange(number + 1)) < SAMPLE:
            chosen[place] = item
    random.shuffle(chosen)
    return chosen


def _text(item: Item, settings: Settings) -> str:
    try:
        (document,) = parse_documents([orjson.loads(item.body)], settings)
    except InvalidDocument as error:
        raise InputError(f"{item.place}: {error.detail}") from error
    return document.text
