"""Which files are meant: names, folders and patterns; `compose.reading` uses it."""

import os
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import filter as matching
from glob import has_magic
from pathlib import Path
from typing import NoReturn

from compose.errors import InputError

STDIN = "-"


@dataclass(frozen=True, slots=True)
class Selection:
    """Files in the order in which they are read, each once, and what was passed over in folders
    and patterns, by suffix."""

    names: tuple[str, ...]
    skipped: Counter[str]

    def __str__(self) -> str:
        """What was skipped; empty if nothing was."""
        kinds = [
            f"{count:,} {kind or 'without suffix'}" for kind, count in sorted(self.skipped.items())
        ]
        return f"skipped {self.skipped.total():,} files: {', '.join(kinds)}" if kinds else ""


def select(given: Sequence[str], suffixes: Container[str]) -> Selection:
    """Names as they stand, in their order; folders with all below them, and patterns (`*`, `?`,
    `[...]`, `**`), each sorted. In these only files with one of `suffixes` count, and nothing
    whose name begins with a dot. Links to folders are followed only where they are named.

    Raises InputError for what is not there, and for a folder that cannot be read.
    """
    names: dict[str, None] = {}
    skipped: Counter[str] = Counter()
    for name in given:
        if name == STDIN or (Path(name).exists() and not Path(name).is_dir()):
            names[name] = None
            continue
        for found in sorted(set(_expand(name)), key=_order):
            suffix = Path(found).suffix.lower()
            if suffix and suffix in suffixes:
                names[found] = None
            else:
                skipped[suffix] += 1
    return Selection(tuple(names), skipped)


def _expand(name: str) -> Iterator[str]:
    if Path(name).is_dir():
        yield from _below(name)
        return
    matches = list(_matches(name)) if has_magic(name) else []
    if not matches:
        what = "matches nothing" if has_magic(name) else "is not there"
        raise InputError(f"{name} {what}")
    for match in matches:
        if not Path(match).is_dir():
            yield match
        elif "**" not in name:
            yield from _below(match)


def _matches(pattern: str) -> Iterator[str]:
    """As `glob` has them, but links to folders end where a wildcard finds them: a link to a folder
    above itself would give every file again and again."""
    path = Path(pattern)
    steps = path.parts[1:] if path.anchor else path.parts
    for found in _follow(path.anchor or ".", steps):
        yield str(Path(found))


def _follow(place: str, steps: Sequence[str]) -> Iterator[str]:
    if not steps:
        yield place
        return
    step, rest = steps[0], steps[1:]
    if step == "**":
        for folder, _ in _walk(place):
            yield from _follow(folder, rest or ("*",))
    elif has_magic(step):
        for name in _list(place, step):
            yield from _follow(os.path.join(place, name), rest)
    elif os.path.lexists(named := os.path.join(place, step)):
        yield from _follow(named, rest)


def _list(folder: str, pattern: str) -> Iterator[str]:
    """Names that match, without links to folders; none where there is no folder."""
    if not os.path.isdir(folder):
        return
    try:
        names = os.listdir(folder)
    except OSError as error:
        _unreadable(error)
    for name in matching(names, pattern):
        path = os.path.join(folder, name)
        linked = os.path.islink(path) and os.path.isdir(path)
        if not linked and (pattern.startswith(".") or not name.startswith(".")):
            yield name


def _below(folder: str) -> Iterator[str]:
    for path, files in _walk(folder):
        yield from (os.path.join(path, name) for name in files if not name.startswith("."))


def _walk(folder: str) -> Iterator[tuple[str, list[str]]]:
    """Each folder and the names of its files; none where there is no folder."""
    if not os.path.isdir(folder):
        return
    for path, folders, files in os.walk(folder, onerror=_unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield path, files


def _unreadable(error: OSError) -> NoReturn:
    raise InputError(f"{error.filename} cannot be read: {error.strerror}") from error


def _order(name: str) -> tuple[str, ...]:
    """Folder by folder."""
    return Path(name).parts
