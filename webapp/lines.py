"""Lines of an upload as batches of documents, in constant memory. Used inside `webapp` only."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tasks.documents import parse_documents
from tasks.errors import EmbedError, InvalidDocument, KeyReused, RequestTooLarge
from tasks.messages import Document
from tasks.settings import Settings
from webapp.bodies import parse_json
from webapp.idempotency import REUSED, Progress

BATCH_DOCUMENTS = 512
BATCH_BYTES = 512 * 1024
"""Of the lines of a batch, unless a single line is longer."""
ESCAPED = 6
"""JSON may write a character of one byte as \\u0041."""
LINE_SLACK_BYTES = 8 * 1024
"""Of a line around its text and metadata."""

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Batch:
    """Documents of successive lines, no id twice; and how far the upload has come with them."""

    documents: Sequence[Document]
    progress: Progress


@dataclass(frozen=True, slots=True)
class Failure:
    """The line that cannot be read; what stood before it is in batches."""

    line: int
    error: EmbedError


class LineCutter:
    """Chunks in, whole lines out; holds one unfinished line."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._held: list[bytes] = []
        self._held_bytes = 0

    def cut(self, chunk: bytes) -> Iterator[bytes]:
        """Raises RequestTooLarge at the line that is longer than may be."""
        first, *rest = chunk.split(b"\n")
        self._hold(first)
        for part in rest:
            yield self.finish()
            self._hold(part)

    def finish(self) -> bytes:
        """The line that is held: the last one needs no end."""
        line = b"".join(self._held)
        self._held, self._held_bytes = [], 0
        return line

    def _hold(self, part: bytes) -> None:
        self._held_bytes += len(part)
        if self._held_bytes > self._most_bytes:
            raise RequestTooLarge(f"the line is longer than {self._most_bytes} bytes")
        self._held.append(part)


class LineReader:
    """Reads on from `begun`, whose lines are only compared where the body has them again.

    `failure` is set by the line that cannot be read; nothing after it is.
    """

    def __init__(
        self, settings: Settings, begun: Progress, from_line: int, most_documents: int
    ) -> None:
        """A batch has at most `most_documents`, fewer if the settings say so."""
        self._settings = settings
        self._begun = begun
        self._number = from_line
        self._compared = from_line == begun.next_line
        self._chain = begun.chain if self._compared else begun.options
        self._documents = begun.documents
        self._cutter = LineCutter(line_bytes(settings))
        self._most = min(
            most_documents, settings.max_request_documents, max(settings.queue_limit // 4, 1)
        )
        self._most_bytes = min(BATCH_BYTES, max(settings.queue_bytes // 4, 1))
        self._held: dict[str, bool] = {}
        self._batch: list[Document] = []
        self._batch_bytes = 0
        self.failure: Failure | None = None

    def read(self, chunk: bytes) -> list[Batch]:
        """The batches that the chunk completes. Takes milliseconds: not on an event loop."""
        batches: list[Batch] = []
        try:
            for line in self._cutter.cut(chunk):
                batches += self._take(line)
        except EmbedError as error:
            batches += self._fail(error)
        return batches

    def finish(self) -> list[Batch]:
        """What is left when the body has ended."""
        batches: list[Batch] = []
        try:
            if line := self._cutter.finish():
                batches += self._take(line)
            if self._chain != self._begun.options:  # an empty body only asks
                self._compare()
        except EmbedError as error:
            return self._fail(error)
        return batches + self._close()

    def _take(self, line: bytes) -> Iterator[Batch]:
        if self._number == 1:
            line = line.removeprefix(_BOM)
        if line.strip():
            if self._number < self._begun.next_line:
                self._chain = extend(self._chain, line)
            else:
                yield from self._add(line)
        self._number += 1

    def _add(self, line: bytes) -> Iterator[Batch]:
        self._compare()
        document, given = self._parse(line)
        # the same text twice is the same document twice; of one id the later line wins
        repeated = document.id in self._held and (given or self._held[document.id])
        size = self._batch_bytes + len(line)
        if repeated or len(self._batch) == self._most or size > self._most_bytes:
            yield from self._close()
        self._chain = extend(self._chain, line)
        self._batch.append(document)
        self._held[document.id] = given
        self._batch_bytes += len(line)

    def _compare(self) -> None:
        """The lines that were accepted before with those that stand here now."""
        if not self._compared and self._chain != self._begun.chain:
            raise KeyReused(REUSED)
        self._compared = True

    def _parse(self, line: bytes) -> tuple[Document, bool]:
        item = parse_json(line, "the line")
        if not isinstance(item, dict):
            raise InvalidDocument("a line is an object with a text", index=0)
        (document,) = parse_documents([item], self._settings)
        return document, item.get("id") is not None

    def _close(self) -> list[Batch]:
        """The batch that is held, if any: the line that is being read does not belong to it."""
        if not self._batch:
            return []
        self._documents += len(self._batch)
        progress = Progress(
            self._begun.options, self._begun.first_line, self._number, self._documents, self._chain
        )
        batch = Batch(self._batch, progress)
        self._batch, self._held, self._batch_bytes = [], {}, 0
        return [batch]

    def _fail(self, error: EmbedError) -> list[Batch]:
        self.failure = Failure(self._number, error)
        return self._close()


def line_bytes(settings: Settings) -> int:
    """Of a line at most: a text and metadata as large as may be, all of it escaped."""
    most = settings.max_text_bytes + settings.max_metadata_bytes
    return min(settings.max_request_bytes, ESCAPED * most + LINE_SLACK_BYTES)


def extend(chain: str, line: bytes) -> str:
    """A digest of all lines so far; only the last one is needed to go on."""
    return hashlib.sha256(chain.encode() + line).hexdigest()
