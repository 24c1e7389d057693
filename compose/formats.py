"""Documents in lines of text: paragraphs, Markdown, JSON lines. Pure; `compose.reading` uses it.

A text without an id of its own gets none here: the same text twice is the same document.
"""

import re
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

import orjson

from compose.errors import InputError
from compose.items import Item, make_item

BLOCK_BYTES = 8 * 1024 * 1024
"""Of a paragraph or a piece of code at most, which is held in memory; the web's own limit of a
text is 1 MiB by default."""

_HEADING = re.compile(r" {0,3}#{1,6}[ \t]+(.*?)[ \t]*#*\s*")
_FENCE = re.compile(r"\s*(`{3,}|~{3,})([^`]*)")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a file, its end included; the first is number 1."""

    number: int
    text: str

    @property
    def blank(self) -> bool:
        return not self.text.strip()


Format = Callable[[Iterable[Line], str], Iterator[Item]]
"""Takes the lines and the source's name. Raises InputError with source and line."""


def read_text(lines: Iterable[Line], source: str) -> Iterator[Item]:
    """Paragraphs with blank lines between them, each with its white space made single."""
    number = 0
    for blank, group in groupby(lines, key=lambda line: line.blank):
        if not blank:
            held = _bounded(group, source)
            metadata = {"source": source, "paragraph": number}
            yield _item(source, held[0].number, _join(held), metadata)
            number += 1


def read_markdown(lines: Iterable[Line], source: str) -> Iterator[Item]:
    """Paragraphs, and fenced code as it stands. Headings go in front of what follows them, and the
    nearest one into its metadata."""
    number, heading = 0, ""
    waiting: list[_Block] = []
    for block in _blocks(lines, source):
        waiting.append(block)
        if block.kind == "heading":
            heading = block.text
            continue
        yield _section(waiting, source, number, heading)
        number, waiting = number + 1, []
    if waiting:
        yield _section(waiting, source, number, heading)


def read_json_lines(lines: Iterable[Line], source: str) -> Iterator[Item]:
    """One object `{text, id?, metadata?}` a line; blank lines are passed over."""
    for line in lines:
        if not line.blank:
            place = f"{source}:{line.number}"
            yield make_item(place, _parse(line.text, place))


@dataclass(frozen=True, slots=True)
class _Block:
    kind: Literal["heading", "paragraph", "code"]
    line: int
    text: str


def _section(blocks: list[_Block], source: str, number: int, heading: str) -> Item:
    metadata: dict[str, Any] = {"source": source, "paragraph": number}
    text = "\n".join(block.text for block in blocks)
    return _item(source, blocks[0].line, text, metadata | ({"heading": heading} if heading else {}))


def _blocks(lines: Iterable[Line], source: str) -> Iterator[_Block]:
    rest = iter(lines)
    held: list[Line] = []

    for line in rest:
        heading, fence = _HEADING.fullmatch(line.text), _FENCE.fullmatch(line.text)
        if not (heading or fence or line.blank):
            held.append(line)
            continue
        yield from _paragraph(held, source)
        held = []
        if heading and heading[1]:
            yield _Block("heading", line.number, heading[1])
        elif fence:
            yield from _code(line, fence[1], rest, source)
    yield from _paragraph(held, source)


def _paragraph(held: list[Line], source: str) -> Iterator[_Block]:
    if held:
        yield _Block("paragraph", held[0].number, _join(_bounded(held, source)))


def _code(opening: Line, fence: str, rest: Iterator[Line], source: str) -> Iterator[_Block]:
    """Up to the closing fence, or the end of the file, as CommonMark has it."""
    closing = re.compile(rf"\s*{re.escape(fence[0])}{{{len(fence)},}}\s*")
    inside = _bounded(_until(closing, rest), source)
    text = textwrap.dedent("".join(line.text for line in inside)).strip("\n")
    if text.strip():
        yield _Block("code", opening.number, text)


def _until(closing: re.Pattern[str], rest: Iterator[Line]) -> Iterator[Line]:
    for line in rest:
        if closing.fullmatch(line.text):
            return
        yield line


def _bounded(lines: Iterable[Line], source: str) -> list[Line]:
    held, size_bytes = [], 0
    for line in lines:
        held.append(line)
        size_bytes += len(line.text)
        if size_bytes > BLOCK_BYTES:
            raise InputError(
                f"{source}:{held[0].number}: more than {BLOCK_BYTES // 2**20} MiB without a blank "
                "line; put blank lines between paragraphs, or write JSON lines"
            )
    return held


def _join(lines: Iterable[Line]) -> str:
    return " ".join("".join(line.text for line in lines).split())


def _item(source: str, line: int, text: str, metadata: dict[str, Any]) -> Item:
    return make_item(f"{source}:{line}", {"text": text, "metadata": metadata})


def _parse(text: str, place: str) -> dict[str, Any]:
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InputError(f"{place}: not JSON: {error.msg} at column {error.colno}") from error
    if not isinstance(document, dict) or "text" not in document:
        raise InputError(f'{place}: a line is an object with a text, such as {{"text": "hello"}}')
    return document
