"""API keys: a file of names, digests and scopes, of which the web checks and the CLI writes.

One key a line, in JSON: `{"name", "sha256", "scopes", "created_at"}`, and `texts_per_minute` and
`request_bytes` if it has such limits. A key is 256 random bits, so a plain digest of it tells
nothing. Used inside `webapp`, and by `compose.keys`.
"""

import hashlib
import hmac
import logging
import os
import secrets
import tempfile
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from tasks.errors import SettingsError

logger = logging.getLogger("uvicorn.error")

PREFIX = "em_"


class Scope(StrEnum):
    """What a key may be used for; `admin` is for everything."""

    INGEST = "ingest"
    SEARCH = "search"
    ADMIN = "admin"


class Key(BaseModel):
    """A line of the file; the key itself is not in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    scopes: frozenset[Scope] = Field(min_length=1)
    created_at: AwareDatetime
    texts_per_minute: int | None = Field(default=None, ge=1)
    request_bytes: int | None = Field(default=None, ge=1)

    def allows(self, scope: Scope) -> bool:
        return bool(self.scopes & {scope, Scope.ADMIN})


def make_secret() -> str:
    """A new key, as its user gets it."""
    return PREFIX + secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def find_key(keys: Iterable[Key], secret: str) -> Key | None:
    """The key that this is. Takes as long whichever it is, and if it is none."""
    presented, found = digest(secret), None
    for key in keys:
        if hmac.compare_digest(key.sha256, presented):
            found = key
    return found


def read_keys(path: Path) -> list[Key]:
    """The keys of a file. Raises SettingsError, which names the line and does not repeat it."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise SettingsError(f"the API keys in {path} cannot be read: {reason}") from error
    keys = [_parse(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    names = [key.name for key in keys]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SettingsError(f"{path} has more than one key named {twice[0]!r}")
    return keys


def write_keys(path: Path, keys: Sequence[Key]) -> None:
    """Replace the file at once: who reads it sees the old one or the new one. Raises OSError."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.writelines(f"{key.model_dump_json(exclude_none=True)}\n" for key in keys)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


class KeyRing:
    """The keys of a file as it is now: it is read again whenever it has changed."""

    def __init__(self, path: Path) -> None:
        """Raises SettingsError when it cannot be read."""
        self._path = path
        self._seen = self._look()
        self._keys = read_keys(path)

    def find(self, secret: str) -> Key | None:
        """The key that this is. Raises SettingsError while the file cannot be read: then nobody
        is let in, as it may have been changed to keep somebody out."""
        seen = self._look()
        if seen != self._seen:
            self._keys = read_keys(self._path)
            self._seen = seen
            logger.info("API keys: %d after a change of %s", len(self._keys), self._path)
        return find_key(self._keys, secret)

    def _look(self) -> tuple[int, ...]:
        try:
            found = self._path.stat()
        except OSError:
            return ()
        return found.st_mtime_ns, found.st_size, found.st_ino


def _parse(path: Path, number: int, line: str) -> Key:
    try:
        return Key.model_validate_json(line)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"]) or "it"
        raise SettingsError(f"line {number} of {path} is not a key: {where} is wrong") from error
