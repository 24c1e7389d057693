"""The verbs `embedmill keys add|list|limit|revoke`; only `compose.cli` imports it."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click
from pydantic import ValidationError

from compose.errors import InputError
from tasks.errors import SettingsError
from tasks.settings import get_settings
from webapp.keyring import Key, Scope, digest, make_secret, read_keys, write_keys

LIMITS = {"texts_per_minute": "texts/min", "request_bytes": "bytes/request"}
"""Fields of a key, and what `list` calls them."""


def add(name: str, scopes: Iterable[str], limits: Mapping[str, int | None]) -> None:
    """Make a key and print it. Raises InputError, SettingsError."""
    path = _path()
    keys = read_keys(path) if path.exists() else []
    if any(key.name == name for key in keys):
        raise InputError(f"there is a key named {name!r} already: revoke it, or take another name")
    secret = make_secret()
    _write(path, [*keys, _make_key(name, secret, scopes).model_copy(update=_given(limits))])
    click.echo(secret)
    click.echo("Keep it: it is not shown again, and only its digest is stored.", err=True)


def show() -> None:
    """Print a line for each. Raises SettingsError."""
    for key in read_keys(_path()):
        parts = [f"{key.name:<24}{','.join(sorted(key.scopes)):<24}{key.created_at:%Y-%m-%d}"]
        limits = ((getattr(key, name), unit) for name, unit in LIMITS.items())
        parts += [f"{limit:,} {unit}" for limit, unit in limits if limit]
        click.echo("  ".join(parts))


def limit(name: str, limits: Mapping[str, int | None]) -> None:
    """Change what it may send; None leaves a limit as it is, 0 takes it away.

    Raises InputError, SettingsError.
    """
    path = _path()
    keys = read_keys(path)
    if all(key.name != name for key in keys):
        raise InputError(f"there is no key named {name!r}")
    changed = _given(limits)
    _write(path, [key.model_copy(update=changed) if key.name == name else key for key in keys])


def revoke(name: str) -> None:
    """Take it out of the file. Raises InputError, SettingsError."""
    path = _path()
    keys = read_keys(path)
    left = [key for key in keys if key.name != name]
    if len(left) == len(keys):
        raise InputError(f"there is no key named {name!r}")
    _write(path, left)


def _path() -> Path:
    path = get_settings().api_keys_file
    if path is None:
        raise SettingsError("EMBED_API_KEYS_FILE does not say where the keys are: set it")
    return path


def _make_key(name: str, secret: str, scopes: Iterable[str]) -> Key:
    now = datetime.now(UTC).replace(microsecond=0)
    chosen = frozenset(Scope(scope) for scope in scopes)
    try:
        return Key(name=name, sha256=digest(secret), scopes=chosen, created_at=now)
    except ValidationError as error:
        raise InputError("a name is 1 to 64 letters, digits, dots, dashes, underscores") from error


def _given(limits: Mapping[str, int | None]) -> dict[str, int | None]:
    return {name: limit or None for name, limit in limits.items() if limit is not None}


def _write(path: Path, keys: Sequence[Key]) -> None:
    try:
        write_keys(path, keys)
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror}") from error
