"""Files as documents: opening, decoding, choosing the format. `compose.ingest` uses it.

Memory is constant: files are read as their documents are sent.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from compose.errors import InputError
from compose.formats import Format, Line, read_json_lines, read_markdown, read_text
from compose.items import Item
from compose.selection import STDIN, select
from compose.tables import Columns, read_csv, read_parquet

FORMATS: dict[str, Format] = {
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".md": read_markdown,
    ".markdown": read_markdown,
    ".txt": read_text,
    ".text": read_text,
    ".rst": read_text,
    "": read_text,
}
TABLES = frozenset({".csv", ".tsv"})
PARQUET = ".parquet"
SUFFIXES = frozenset(FORMATS) | TABLES | {PARQUET}
LINE_BYTES = 32 * 1024 * 1024
"""What a web takes in one request by default; a longer line could never be sent."""

_BOM = b"\xef\xbb\xbf"


class Sources:
    """The documents of several files, one after another; `-` is standard input."""

    def __init__(self, given: Sequence[str], columns: Columns | None = None) -> None:
        """Names, folders and patterns. Raises InputError for what is not there, and for a name
        without a format."""
        selection = select(given, SUFFIXES)
        self.names = selection.names
        self.skipped = str(selection)
        """What was passed over in folders and patterns, for people."""
        self.rows_without_text = 0
        self._columns = columns or Columns()
        for name in self.names:
            _refuse_unknown(name)
        self._size_bytes = None if STDIN in self.names else _size_bytes(self.names)
        self._read_bytes = 0

    def __iter__(self) -> Iterator[Item]:
        """Raises InputError with file and line, or file and byte."""
        for name in self.names:
            read = self._read_parquet if _suffix(name) == PARQUET else self._read_lines
            yield from read(name)

    @property
    def share_read(self) -> float | None:
        """How much of all the bytes has been read, from 0 to 1, where that is known."""
        return self._read_bytes / self._size_bytes if self._size_bytes else None

    def _read_lines(self, name: str) -> Iterator[Item]:
        source = "stdin" if name == STDIN else name
        with _open(name) as file:
            lines = self._lines(file, source)
            if name == STDIN:
                lines, read = _guess(lines)
            else:
                read = self._format(name)
            yield from read(lines, source)

    def _format(self, name: str) -> Format:
        if _suffix(name) in TABLES:
            return partial(read_csv, columns=self._columns, skip=self._skip_row)
        return FORMATS[_suffix(name)]

    def _read_parquet(self, name: str) -> Iterator[Item]:
        before, size = self._read_bytes, Path(name).stat().st_size

        def note_share(share: float) -> None:
            self._read_bytes = before + round(size * share)

        return read_parquet(name, self._columns, self._skip_row, note_share)

    def _skip_row(self) -> None:
        self.rows_without_text += 1

    def _lines(self, file: BinaryIO, source: str) -> Iterator[Line]:
        offset, number = 0, 0
        while raw := _read_line(file, source):
            number += 1
            if len(raw) > LINE_BYTES:
                raise InputError(f"{source}:{number}: longer than {LINE_BYTES // 2**20} MiB")
            yield Line(number, _decode(raw, source, offset))
            offset += len(raw)
            self._read_bytes += len(raw)


def _suffix(name: str) -> str:
    return Path(name).suffix.lower()


def _refuse_unknown(name: str) -> None:
    suffix = _suffix(name)
    if name != STDIN and suffix not in SUFFIXES:
        known = ", ".join(sorted(filter(None, SUFFIXES)))
        raise InputError(
            f"{name}: there is no reader for {suffix} files (there is one for {known}); "
            "plain text can be given as -, on standard input"
        )


def _size_bytes(names: Sequence[str]) -> int | None:
    """Of ordinary files; the size of pipes is not known."""
    paths = [Path(name) for name in names]
    return sum(path.stat().st_size for path in paths) if all(map(Path.is_file, paths)) else None


def _open(name: str) -> AbstractContextManager[BinaryIO]:
    if name == STDIN:
        return nullcontext(sys.stdin.buffer)
    try:
        return Path(name).open("rb")
    except OSError as error:
        raise InputError(f"{name} cannot be opened: {error.strerror}") from error


def _read_line(file: BinaryIO, source: str) -> bytes:
    try:
        return file.readline(LINE_BYTES + 1)
    except OSError as error:
        raise InputError(f"{source} cannot be read: {error.strerror}") from error


def _decode(raw: bytes, source: str, offset: int) -> str:
    """A line never cuts a character: no byte of one looks like a line's end in UTF-8."""
    skipped = len(_BOM) if offset == 0 and raw.startswith(_BOM) else 0
    try:
        return raw[skipped:].decode()
    except UnicodeDecodeError as error:
        at = offset + skipped + error.start
        raise InputError(
            f"{source}: byte {at} is not UTF-8; convert the file first, for example with "
            f"iconv -f LATIN1 -t UTF-8"
        ) from error


def _guess(lines: Iterator[Line]) -> tuple[Iterator[Line], Format]:
    """JSON lines when the first line that is not blank begins with a brace."""
    read: list[Line] = []
    for line in lines:
        read.append(line)
        if not line.blank:
            is_json = line.text.lstrip().startswith("{")
            return chain(read, lines), read_json_lines if is_json else read_text
    return iter(()), read_text
