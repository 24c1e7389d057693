"""Real English text that every Python brings with it: the language reference's paragraphs.

The demo ingests it, and conversions are judged on it.
"""

from collections.abc import Iterator
from importlib import import_module
from itertools import chain, islice

from tasks.errors import ModelError

SHORTEST_CHARACTERS = 40
"""Paragraphs must be longer; shorter ones are headings and crumbs of grammar."""


def read_topics() -> dict[str, str]:
    """The reference's pages by topic. Raises ImportError where the Python was stripped of them."""
    topics: dict[str, str] = import_module("pydoc_data.topics").topics
    return topics


def split_paragraphs(page: str) -> Iterator[str]:
    """What stands between blank lines, its white space made single, unless it is very short."""
    for part in page.split("\n\n"):
        paragraph = " ".join(part.split())
        if len(paragraph) > SHORTEST_CHARACTERS:
            yield paragraph


def read_paragraphs(count: int) -> list[str]:
    """Distinct paragraphs, the first of each page before the second of any. Raises ModelError."""
    try:
        pages = read_topics()
    except ImportError as error:
        raise ModelError("this Python has no pydoc_data.topics to judge a model by") from error
    columns = [list(split_paragraphs(page)) for _, page in sorted(pages.items())]
    depth = max(map(len, columns))
    rows = ([column[at] for column in columns if at < len(column)] for at in range(depth))
    return list(islice(dict.fromkeys(chain.from_iterable(rows)), count))
