"""API keys in their file: what is kept of them, and that a change counts at once."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from compose.cli import main
from tasks.errors import SettingsError
from tasks.settings import get_settings
from webapp.keyring import KeyRing, Scope, digest, read_keys, write_keys

Keys = Callable[..., Result]


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "keys.jsonl"
    monkeypatch.setenv("EMBED_API_KEYS_FILE", str(path))
    get_settings.cache_clear()
    yield path
    get_settings.cache_clear()


@pytest.fixture
def keys(path: Path) -> Keys:
    return lambda *arguments: CliRunner().invoke(main, ["keys", *arguments])


def add(keys: Keys, name: str, *scopes: str) -> str:
    flags = [word for scope in scopes for word in ("--scope", scope)]
    result = keys("add", name, *flags)
    assert result.exit_code == 0, result.stderr
    return result.stdout.strip()


def test_a_key_is_shown_once_and_only_its_digest_is_stored(keys: Keys, path: Path) -> None:
    secret = add(keys, "loader", "ingest")
    assert len(secret) > 40
    assert secret not in path.read_text()
    assert digest(secret) in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    listed = keys("list").stdout
    assert listed.split()[:2] == ["loader", "ingest"]
    assert secret not in listed


def test_a_key_is_found_by_its_secret_alone(keys: Keys, path: Path) -> None:
    first, second = add(keys, "first", "ingest"), add(keys, "second", "search", "ingest")
    ring = KeyRing(path)
    found = [ring.find(secret) for secret in (first, second, first + "x", "", "é")]
    assert [key and key.name for key in found] == ["first", "second", None, None, None]


@pytest.mark.parametrize(
    ("scopes", "allowed"),
    [
        (["ingest"], {Scope.INGEST}),
        (["ingest", "search"], {Scope.INGEST, Scope.SEARCH}),
        (["admin"], set(Scope)),
    ],
)
def test_a_scope_allows_itself_and_admin_all(
    keys: Keys, path: Path, scopes: list[str], allowed: set[Scope]
) -> None:
    add(keys, "key", *scopes)
    assert {scope for scope in Scope if read_keys(path)[0].allows(scope)} == allowed


def test_a_revoked_key_is_out_at_once_and_the_others_stay(keys: Keys, path: Path) -> None:
    gone, kept = add(keys, "gone", "ingest"), add(keys, "kept", "ingest")
    ring = KeyRing(path)
    assert ring.find(gone)
    assert keys("revoke", "gone").exit_code == 0
    assert ring.find(gone) is None
    assert ring.find(kept)
    assert ring.find(add(keys, "later", "ingest"))


def test_nobody_is_let_in_while_the_file_cannot_be_read(keys: Keys, path: Path) -> None:
    secret = add(keys, "key", "ingest")
    ring, good = KeyRing(path), path.read_bytes()
    path.write_text("{")
    for _ in range(2):
        with pytest.raises(SettingsError):
            ring.find(secret)
    path.unlink()
    with pytest.raises(SettingsError):
        ring.find(secret)
    path.write_bytes(good)
    assert ring.find(secret)


def test_a_key_has_limits_that_can_be_changed_without_a_new_secret(keys: Keys, path: Path) -> None:
    added = keys("add", "key", "--scope", "ingest", "--texts-per-minute", "600")
    ring = KeyRing(path)

    def limits() -> tuple[int | None, int | None]:
        key = ring.find(added.stdout.strip())
        assert key
        return key.texts_per_minute, key.request_bytes

    assert limits() == (600, None)
    assert "600 texts/min" in keys("list").stdout
    assert keys("limit", "key", "--request-bytes", "1000").exit_code == 0
    assert limits() == (600, 1000)
    assert keys("limit", "key", "--texts-per-minute", "0").exit_code == 0
    assert limits() == (None, 1000)
    assert keys("list").stdout.rstrip().endswith("  1,000 bytes/request")


@pytest.mark.parametrize(
    "arguments",
    [
        ("add", "key", "--scope", "ingest"),
        ("add", "a b", "--scope", "ingest"),
        ("revoke", "other"),
        ("limit", "other", "--request-bytes", "1"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_changes_nothing(
    keys: Keys, path: Path, arguments: tuple[str, ...]
) -> None:
    add(keys, "key", "ingest")
    before = path.read_bytes()
    result = keys(*arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert path.read_bytes() == before


def test_a_wrong_line_is_named_and_not_repeated(keys: Keys, path: Path) -> None:
    add(keys, "key", "ingest")
    path.write_text(path.read_text() + '{"name": "a", "sha256": "secret"}\n')
    with pytest.raises(SettingsError) as wrong:
        read_keys(path)
    assert "line 2" in str(wrong.value)
    assert "secret" not in str(wrong.value)


def test_a_name_stands_for_one_key(keys: Keys, path: Path) -> None:
    add(keys, "key", "ingest")
    write_keys(path, read_keys(path) * 2)
    with pytest.raises(SettingsError, match="more than one key named 'key'"):
        read_keys(path)


def test_without_a_file_there_is_nothing_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EMBED_API_KEYS_FILE", raising=False)
    get_settings.cache_clear()
    result = CliRunner().invoke(main, ["keys", "list"])
    assert result.exit_code == 1
    assert "EMBED_API_KEYS_FILE" in result.stderr


def test_a_limit_that_is_not_given_is_asked_for(keys: Keys, path: Path) -> None:
    add(keys, "loader", "ingest")
    before = path.stat()
    result = keys("limit", "loader")
    assert result.exit_code == 2
    assert "give --texts-per-minute N or --request-bytes N" in result.stderr
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
