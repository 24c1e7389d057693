"""Dead letters: failed documents, kept whole with what befell them. Any package may import it.

They are a Redis stream; a letter's stream id tells when it was written, in milliseconds. They are
read newest first and in pages: who replays or purges page by page never meets what fails meanwhile.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import redis

from tasks.broker import text
from tasks.errors import InvalidRequest, LetterNotFound
from tasks.ledger import DEAD, DEAD_BYTES, Call, Script, run
from tasks.messages import Options, Outcome, PlacedDocument
from tasks.settings import Settings

PAGE_LETTERS = 256
"""Letters of a page at most."""
PAGE_BYTES = 1024 * 1024
"""Bytes of a page at most, unless its only letter has more: Redis serves nobody else meanwhile."""

LETTERS, PURGE = map(Script, ("letters", "purge"))
ID_PATTERN = r"^[1-9][0-9]{0,18}-[0-9]{1,19}$"
"""Of a letter's id, which is also the cursor behind it."""
_ID = re.compile(ID_PATTERN)
_NONE = "0-0"
"""No letter's id."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A document that failed; `at` in Unix seconds, `size` in bytes as limits count it.

    `sequence` is its acceptance number; 0 where it is not known, which is older than all others.
    """

    id: str
    at: float
    size: int
    job_id: str
    index: int
    document_id: str
    text: str
    metadata: dict[str, Any] | None
    collection: str
    on_long: str
    code: str
    detail: str
    attempts: int
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class LetterPage:
    """Some letters, newest first, of `total`; `cursor` is where the next page begins."""

    letters: Sequence[DeadLetter]
    total: int
    cursor: str | None


def write_letter(job_id: str, placed: PlacedDocument, options: Options, outcome: Outcome) -> bytes:
    """What the settle script keeps of a failed document."""
    return orjson.dumps(
        {
            "job_id": job_id,
            "index": placed.index,
            "document_id": placed.document.id,
            "text": placed.document.text,
            "metadata": placed.document.metadata,
            "collection": options.collection,
            "on_long": options.on_long,
            "code": outcome.code,
            "detail": outcome.detail[:1000],
            "attempts": outcome.attempts,
            "sequence": placed.sequence,
        }
    )


def read_page(
    settings: Settings, cursor: str | None = None, limit: int = PAGE_LETTERS
) -> Call[LetterPage]:
    """The next letters after the cursor; fewer than `limit` where they are large.

    Raises InvalidRequest for what is no cursor.
    """
    if cursor is not None and not _ID.fullmatch(cursor):
        raise InvalidRequest("a cursor is what the page before has given", code="cursor_invalid")
    start = "+" if cursor is None else f"({cursor}"
    size = min(PAGE_BYTES, settings.queue_bytes)  # a page that is replayed has to fit the queue
    return Call(LETTERS, [DEAD], [start, limit, size], _page, settings.broker_url)


def find_letter(settings: Settings, letter_id: str) -> Call[DeadLetter]:
    """One letter, whole. Raises LetterNotFound."""

    def found(reply: Any) -> DeadLetter:
        letters = _page(reply).letters
        if not letters or letters[0].id != letter_id:
            raise _not_found(letter_id)
        return letters[0]

    return Call(LETTERS, [DEAD], [_known(letter_id), 1, 0], found, settings.broker_url)


def discard_letter(settings: Settings, letter_id: str) -> Call[int]:
    """Remove one letter. Raises LetterNotFound."""

    def gone(reply: Any) -> int:
        if not reply:
            raise _not_found(letter_id)
        return int(reply)

    return Call(PURGE, [DEAD, DEAD_BYTES], [_known(letter_id)], gone, settings.broker_url)


def discard_letters(settings: Settings, letters: Sequence[DeadLetter]) -> Call[int]:
    """Remove these letters; the reply counts those that were still there."""
    ids = [letter.id for letter in letters] or [_NONE]
    return Call(PURGE, [DEAD, DEAD_BYTES], ids, int, settings.broker_url)


def purge_letters(settings: Settings) -> Call[int]:
    """Remove all letters; the reply counts them."""
    return Call(PURGE, [DEAD, DEAD_BYTES], [], int, settings.broker_url)


def read_letters(client: redis.Redis, settings: Settings) -> Iterator[DeadLetter]:
    """All of them, newest first, a page at a time. Raises BrokerDown."""
    page = run(client, read_page(settings))
    yield from page.letters
    while page.cursor:
        page = run(client, read_page(settings, page.cursor))
        yield from page.letters


def _page(reply: Any) -> LetterPage:
    total, more, *entries = reply
    letters = [_letter(*pair) for pair in zip(entries[::2], entries[1::2], strict=True)]
    return LetterPage(letters, int(total), letters[-1].id if more else None)


def _letter(entry_id: bytes, content: bytes) -> DeadLetter:
    name = text(entry_id)
    at = int(name.partition("-")[0]) / 1000
    return DeadLetter(id=name, at=at, size=len(content), **orjson.loads(content))


def _known(letter_id: str) -> str:
    if not _ID.fullmatch(letter_id):
        raise _not_found(letter_id)
    return letter_id


def _not_found(letter_id: str) -> LetterNotFound:
    return LetterNotFound(f"there is no dead letter {letter_id[:64]!r}")
