"""The two files that tell of a running stack; only `compose` imports it.

`stack.json` is for users: where everything is, once it is ready. `processes.json` is for the next
start: what to look for when this run is killed. Both hold secrets or what leads to them: mode 0600.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compose.errors import StackError
from compose.process import Identity

STACK = "stack.json"
PROCESSES = "processes.json"


@dataclass(frozen=True, slots=True)
class Run:
    """The mark that all its processes bear, and those it started itself, in start order."""

    mark: str
    processes: tuple[Identity, ...] = ()


def write_stack(data_dir: Path, entries: Mapping[str, Mapping[str, Any]]) -> None:
    """A stack's addresses by service. Raises StackError."""
    write(data_dir / STACK, entries)


def write_run(data_dir: Path, run: Run) -> None:
    """Raises StackError."""
    write(data_dir / PROCESSES, asdict(run))


def read_run(data_dir: Path) -> Run | None:
    """The run that did not end cleanly, or none. Raises StackError when the file is damaged."""
    path = data_dir / PROCESSES
    try:
        content = json.loads(path.read_bytes())
        return Run(content["mark"], tuple(Identity(**row) for row in content["processes"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StackError(
            f"{path} cannot be read ({error}): see that no process of an earlier run is left, "
            "then delete it"
        ) from error


def remove_stack(data_dir: Path) -> None:
    (data_dir / STACK).unlink(missing_ok=True)


def remove_run(data_dir: Path) -> None:
    (data_dir / PROCESSES).unlink(missing_ok=True)


def write(path: Path, content: Mapping[str, Any]) -> None:
    """JSON, mode 0600, there as a whole or not at all. Raises StackError."""
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise StackError(f"{path} cannot be written: {error}") from error
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=2)
            file.write("\n")
        os.replace(temporary, path)
    except OSError as error:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise StackError(f"{path} cannot be written: {error}") from error
