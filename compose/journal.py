"""How far an ingestion came, in a file, so that it can go on later; `compose.ingest` uses it.

The file belongs to exactly these inputs: paths, sizes, times of change, options and web. Losing it
costs nothing but work: what is sent again is the same documents.
"""

import hashlib
import time
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson

from compose.errors import StackError
from compose.items import Batch
from compose.record import write

FOLDER = "ingests"
SAVE_S = 0.5
"""What was accepted since then and is not in the file would only be sent again."""
KEPT_S = 30 * 86400.0


class Spans:
    """A set of numbers as ranges, few of them: what was accepted, nearly in order."""

    def __init__(self, ranges: Iterable[Sequence[int]] = ()) -> None:
        """Each from its first number to before its last; apart, ascending."""
        self._ranges = [[int(start), int(stop)] for start, stop in ranges]

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._ranges, number, key=_start) - 1
        return at >= 0 and number < self._ranges[at][1]

    def __len__(self) -> int:
        return sum(stop - start for start, stop in self._ranges)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._ranges)

    def add(self, number: int) -> None:
        if number in self:
            return
        at = bisect_right(self._ranges, number, key=_start)
        left, right = self._ranges[at - 1 : at], self._ranges[at : at + 1]
        joins_left = at > 0 and left[0][1] == number
        joins_right = bool(right) and right[0][0] == number + 1
        if joins_left and joins_right:
            left[0][1] = right[0][1]
            del self._ranges[at]
        elif joins_left:
            left[0][1] += 1
        elif joins_right:
            right[0][0] = number
        else:
            self._ranges.insert(at, [number, number + 1])


class Journal:
    """Which items, by their number in the input, were accepted; `before` of them by earlier runs.

    Without a path it is kept in memory only.
    """

    def __init__(self, path: Path | None = None, *, resume: bool = False) -> None:
        """Raises nothing: a file that is damaged is none."""
        nothing = (str(uuid4()), Spans())
        found = _read(path) if path else nothing
        self.found = len(found[1])
        """Items that an earlier run's file has, whether this one goes on from there or not."""
        self._run, self._spans = found if resume and self.found else nothing
        self.before = len(self._spans)
        self._path = path
        self._saved_s = time.monotonic()

    @property
    def resumable(self) -> bool:
        return self._path is not None

    def __contains__(self, number: int) -> bool:
        return number in self._spans

    def key(self, batch: Batch) -> str:
        """For the request that brings the batch: the same in every run that goes on."""
        digest = hashlib.sha256(f"{self._run} {batch[0].number}".encode())
        for item in batch:
            digest.update(item.body)
        return digest.hexdigest()

    def note(self, batch: Batch) -> None:
        """It was accepted."""
        for item in batch:
            self._spans.add(item.number)

    def save(self, *, now: bool = False) -> None:
        """Now and then. Without a file that can be written it goes on in memory."""
        if self._path is None or not (now or time.monotonic() - self._saved_s >= SAVE_S):
            return
        self._saved_s = time.monotonic()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write(self._path, {"run": self._run, "spans": list(self._spans)})
        except (OSError, StackError):
            self._path = None

    def remove(self) -> None:
        """All was accepted: there is nothing to go on with, and nothing to note any more."""
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
            self._path = None


def journal_path(cache_dir: Path, names: Sequence[str], said: Mapping[str, object]) -> Path:
    """Of an ingestion of these files, as they are now, with what else was said about it. Files of
    ingestions that were given up long ago go."""
    folder = cache_dir.expanduser() / FOLDER
    _tidy(folder)
    files = [(str(Path(name).resolve()), *_version(Path(name))) for name in names]
    digest = hashlib.sha256(orjson.dumps([files, said], option=orjson.OPT_SORT_KEYS)).hexdigest()
    return folder / f"{digest[:32]}.json"


def _start(span: Sequence[int]) -> int:
    return span[0]


def _version(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _read(path: Path) -> tuple[str, Spans]:
    """A run's id and what was accepted: nothing where there is no file, or none of ours."""
    try:
        content: dict[str, Any] = orjson.loads(path.read_bytes())
        return str(content["run"]), Spans(content["spans"])
    except (OSError, ValueError, KeyError, TypeError):
        return "", Spans()


def _tidy(folder: Path) -> None:
    with suppress(OSError):
        for path in folder.glob("*.json"):
            if time.time() - path.stat().st_mtime > KEPT_S:
                path.unlink()
