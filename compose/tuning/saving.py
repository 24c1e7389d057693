"""Writing recommended settings into the settings file. Only `compose.tune` imports it."""

import os
import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from compose.errors import InputError
from tasks import settings_file

_NAME = re.compile(r"\s*(?:export\s+)?([A-Za-z_]\w*)\s*=")


def save(data_dir: Path, changes: Mapping[str, str]) -> Path:
    """Put the values in, take out the names that have an empty one, and leave all else as it is.

    The file is there as a whole or not at all; a new one is for its owner alone. Raises InputError,
    and SettingsError when what stands there cannot be read.
    """
    path = data_dir / settings_file.NAME
    settings_file.read(path)
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        _replace(path, merge(before, changes))
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error
    return path


def merge(text: str, changes: Mapping[str, str]) -> str:
    """The file's text with the changes."""
    kept = [line for line in text.splitlines() if _name(line) not in changes]
    return "\n".join([*kept, *(f"{name}={value}" for name, value in changes.items() if value), ""])


def _name(line: str) -> str:
    found = _NAME.match(line)
    return found[1].upper() if found else ""


def _replace(path: Path, text: str) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        if path.exists():
            os.chmod(temporary, path.stat().st_mode & 0o777)
        os.replace(temporary, path)
    except OSError:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
