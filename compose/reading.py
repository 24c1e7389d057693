"""Files as documents: opening, decoding, choosing the format. `compose.ingest` uses it.

Memory is constant: files are read as their documents are sent.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from compose.errors import InputError
from compose.formats import Format, Line, read_json_lines, read_markdown, read_text
from compose.items import Item

STDIN = "-"
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
LINE_BYTES = 32 * 1024 * 1024
"""What a web takes in one request by default; a longer line could never be sent."""

_BOM = b"\xef\xbb\xbf"


class Sources:
    """The documents of several files, one after another; `-` is standard input."""

    def __init__(self, names: Sequence[str]) -> None:
        """Raises InputError for a name without a format."""
        self._names = names
        self._formats = [None if name == STDIN else _format(name) for name in names]
        self._size_bytes = None if STDIN in names else _size_bytes(names)
        self._read_bytes = 0

    def __iter__(self) -> Iterator[Item]:
        """Raises InputError with file and line, or file and byte."""
        for name, read in zip(self._names, self._formats, strict=True):
            source = "stdin" if name == STDIN else name
            with _open(name) as file:
                lines = self._lines(file, source)
                if read is None:
                    lines, read = _guess(lines)  # noqa: PLW2901
                yield from read(lines, source)

    @property
    def share_read(self) -> float | None:
        """How much of all the bytes has been read, from 0 to 1, where that is known."""
        return self._read_bytes / self._size_bytes if self._size_bytes else None

    def _lines(self, file: BinaryIO, source: str) -> Iterator[Line]:
        offset, number = 0, 0
        while raw := _read_line(file, source):
            number += 1
            if len(raw) > LINE_BYTES:
                raise InputError(f"{source}:{number}: longer than {LINE_BYTES // 2**20} MiB")
            yield Line(number, _decode(raw, source, offset))
            offset += len(raw)
            self._read_bytes += len(raw)


def _format(name: str) -> Format:
    suffix = Path(name).suffix.lower()
    if suffix not in FORMATS:
        known = ", ".join(sorted(filter(None, FORMATS)))
        raise InputError(
            f"{name}: there is no reader for {suffix} files (there is one for {known}); "
            "plain text can be given as -, on standard input"
        )
    return FORMATS[suffix]


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
