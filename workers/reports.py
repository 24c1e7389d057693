"""What pool children tell their worker's main process: that their model is loaded, or why not.

A named pipe that both ends find by the main process' id. An inherited one would do after a fork,
but macOS starts children as fresh interpreters. `workers.startup` writes, `workers.heartbeat`
reads. A report is one JSON line, shorter than PIPE_BUF, hence written whole.
"""

import os
import stat
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from tasks.messages import ModelCard

SENTENCE_CHARACTERS = 300
"""Keeps a line of ASCII within 512 bytes, the least that PIPE_BUF may be."""


@dataclass(frozen=True, slots=True)
class Report:
    """A child's model, or the sentence that says why it has none."""

    pid: int
    card: ModelCard | None = None
    error: str = ""


class ReportReader:
    """The main process' end: make it before there are children."""

    def __init__(self, main_pid: int) -> None:
        self._path = _path(main_pid)
        _remove_stale()
        self._path.unlink(missing_ok=True)
        os.mkfifo(self._path, 0o600)
        self.fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
        # an own writer keeps the pipe open, or it would be readable for ever between children
        self._writer = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
        self._rest = b""

    def read(self) -> list[Report]:
        """The reports that have arrived."""
        try:
            self._rest += os.read(self.fd, 65536)
        except BlockingIOError:
            return []
        *lines, self._rest = self._rest.split(b"\n")
        return [_decode(line) for line in lines]

    def close(self) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._writer)
        os.close(self.fd)


def send_report(main_pid: int, report: Report) -> None:
    """Tell the main process; without one that listens this does nothing."""
    line = orjson.dumps({**asdict(report), "error": report.error[:SENTENCE_CHARACTERS]}) + b"\n"
    try:
        pipe = os.open(_path(main_pid), os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return
    try:
        found = os.fstat(pipe)
        if stat.S_ISFIFO(found.st_mode) and found.st_uid == os.geteuid():
            os.write(pipe, line)
    finally:
        os.close(pipe)


def _path(main_pid: int | str) -> Path:
    return Path(tempfile.gettempdir()) / f"embedmill-{os.geteuid()}-{main_pid}.reports"


def _remove_stale() -> None:
    """Pipes of main processes that were killed."""
    for path in Path(tempfile.gettempdir()).glob(_path("*").name):
        try:
            os.kill(int(path.name.split("-")[2].partition(".")[0]), 0)
        except ProcessLookupError:
            path.unlink(missing_ok=True)
        except (ValueError, PermissionError):
            continue  # not one of ours, or alive


def _decode(line: bytes) -> Report:
    row = orjson.loads(line)
    card = row["card"]
    return Report(row["pid"], ModelCard(**card) if card else None, row["error"])
