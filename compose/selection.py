"""Which files are meant: names, folders and patterns; `compose.reading` uses it."""

import os
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path

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
    whose name begins with a dot. Links to folders are not followed.

    Raises InputError for what is not there.
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
    matches = glob(name, recursive=True) if has_magic(name) else []
    if not matches:
        what = "matches nothing" if has_magic(name) else "is not there"
        raise InputError(f"{name} {what}")
    for match in matches:
        if not Path(match).is_dir():
            yield match
        elif "**" not in name:
            yield from _below(match)


def _below(folder: str) -> Iterator[str]:
    for path, folders, files in os.walk(folder, onerror=_unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.join(path, name) for name in files if not name.startswith("."))


def _unreadable(error: OSError) -> None:
    raise InputError(f"{error.filename} cannot be read: {error.strerror}") from error


def _order(name: str) -> tuple[str, ...]:
    """Folder by folder."""
    return Path(name).parts
