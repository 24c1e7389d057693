"""The door: who is let in where, by key, scope and the address at which a request arrives."""

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message

from tasks.errors import SettingsError
from tasks.settings import Settings
from webapp import main
from webapp.keyring import Key, KeyRing, Scope, digest, write_keys
from webapp.keys import KeyGuard, check_address, is_loopback
from webapp.main import create_app

LOCAL, REMOTE = ("127.0.0.1", 8080), ("172.18.0.3", 8080)
Server = tuple[str, int | None] | None


def ask(
    guard: KeyGuard, path: str, *, server: Server = LOCAL, **headers: str | None
) -> tuple[int, str]:
    """Status and code of the answer; 200 and nothing when the request was passed on."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    given = [
        (name.encode(), value.encode()) for name, value in headers.items() if value is not None
    ]
    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": path, "headers": given}
    asyncio.run(guard({**scope, "server": server}, receive, send))
    body = sent[1]["body"]
    return sent[0]["status"], json.loads(body)["code"] if body else ""


@pytest.fixture
def without_keys() -> KeyGuard:
    return KeyGuard(PlainTextResponse(), None)


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    """A file with a key for each scope, whose secret is the scope's name."""
    now = datetime.now(UTC)
    keys = [
        Key(name=scope, sha256=digest(scope), scopes=frozenset({scope}), created_at=now)
        for scope in Scope
    ]
    write_keys(tmp_path / "keys.jsonl", keys)
    return tmp_path / "keys.jsonl"


@pytest.fixture
def guard(keys_file: Path) -> KeyGuard:
    return KeyGuard(PlainTextResponse(), KeyRing(keys_file))


@pytest.mark.parametrize(
    ("server", "status"),
    [
        (LOCAL, 200),
        (("::1", 8080), 200),
        (("::ffff:127.0.0.1", 8080), 200),
        (("/run/embedmill.sock", None), 200),
        (REMOTE, 403),
        (("0.0.0.0", 8080), 403),
        (("example.org", 80), 403),
        (None, 403),
    ],
)
def test_without_keys_only_this_machine_is_answered(
    without_keys: KeyGuard, server: Server, status: int
) -> None:
    expected = (status, "" if status == 200 else "keys_required")
    assert ask(without_keys, "/embed", server=server) == expected


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:8080", 200),
        ("http://localhost:3000", 403),
        ("https://example.org", 403),
        ("null", 403),
        ("http://[", 403),
    ],
)
def test_without_keys_pages_of_other_origins_are_not_answered(
    without_keys: KeyGuard, guard: KeyGuard, origin: str, status: int
) -> None:
    """A browser sends their simple requests, to /embed as well, without asking first."""
    expected = (status, "" if status == 200 else "origin_refused")
    assert ask(without_keys, "/embed", origin=origin, host="localhost:8080") == expected
    answer = ask(guard, "/embed", origin=origin, host="inner:80", authorization="Bearer admin")
    assert answer == (200, "")  # a proxy may change the host


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8080", 200),
        ("LOCALHOST", 200),
        ("127.0.0.1", 200),
        ("[::1]:8080", 200),
        ("evil.example:8080", 403),
        ("localhost.evil.example", 403),
        ("[::ffff:10.0.0.1]:80", 403),
        ("", 403),
    ],
)
def test_without_keys_no_other_name_means_this_machine(
    without_keys: KeyGuard, guard: KeyGuard, host: str, status: int
) -> None:
    """A page of evil.example, whose address was changed to 127.0.0.1 meanwhile, sends its name."""
    expected = (status, "" if status == 200 else "host_refused")
    assert ask(without_keys, "/dead", host=host, origin=f"http://{host}") == expected
    assert ask(without_keys, "/dead", host=host, server=("/run/web.sock", None)) == (200, "")
    assert ask(guard, "/dead", host=host, authorization="Bearer admin") == (200, "")


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_probes_are_open(guard: KeyGuard, without_keys: KeyGuard, path: str) -> None:
    assert ask(guard, path) == (200, "")
    assert ask(without_keys, path, server=REMOTE) == (200, "")


@pytest.mark.parametrize("path", ["/livez/", "//livez", "/livez/x", "/readyz/../queue", "/", ""])
def test_what_only_resembles_a_probe_is_not_open(guard: KeyGuard, path: str) -> None:
    assert ask(guard, path) == (401, "key_missing")


@pytest.mark.parametrize("server", [LOCAL, REMOTE])
@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/embed", {"ingest", "admin"}),
        ("/embed/", {"ingest", "admin"}),
        ("/jobs/1", {"ingest", "admin"}),
        ("/queue", {"ingest", "admin"}),
        ("/search", {"search", "admin"}),
        ("/v1/embeddings", {"search", "admin"}),
        ("/metrics", {"admin"}),
        ("/whatever", {"admin"}),
    ],
)
def test_a_key_opens_what_its_scope_says(
    guard: KeyGuard, path: str, allowed: set[str], server: Server
) -> None:
    for scope in Scope:
        expected = (200, "") if scope in allowed else (403, "scope_missing")
        assert ask(guard, path, server=server, authorization=f"Bearer {scope}") == expected


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        (None, "key_missing"),
        ("", "key_missing"),
        ("Bearer", "key_missing"),
        ("Bearer  ", "key_missing"),
        ("Basic YWRtaW4=", "key_missing"),
        ("admin", "key_missing"),
        ("Bearer admins", "key_invalid"),
        ("Bearer Ã¤", "key_invalid"),
        (f"Bearer {digest('admin')}", "key_invalid"),
    ],
)
def test_without_a_good_key_the_answer_is_401(
    guard: KeyGuard, authorization: str | None, code: str
) -> None:
    assert ask(guard, "/queue", authorization=authorization) == (401, code)


def test_the_scheme_is_written_in_any_case(guard: KeyGuard) -> None:
    assert ask(guard, "/queue", authorization="bearer admin") == (200, "")


def test_keys_that_cannot_be_read_let_nobody_in(guard: KeyGuard, keys_file: Path) -> None:
    keys_file.write_text("{")
    assert ask(guard, "/queue", authorization="Bearer admin") == (503, "keys_unreadable")
    assert ask(guard, "/livez") == (200, "")


@pytest.mark.parametrize(
    "argv",
    [
        ["uvicorn", "webapp.main:app", "--host", "0.0.0.0"],
        ["/venv/bin/uvicorn", "--host=::", "webapp.main:app", "--workers", "4"],
        ["/venv/uvicorn/__main__.py", "webapp.main:app", "--host", "example.org"],
    ],
)
def test_listening_to_others_without_keys_is_refused_at_the_start(
    argv: Sequence[str], keys_file: Path
) -> None:
    with pytest.raises(SettingsError, match="without API keys: set EMBED_API_KEYS_FILE") as refused:
        check_address(Settings(), argv)
    assert "\n" not in str(refused.value)
    check_address(Settings(api_keys_file=keys_file), argv)


@pytest.mark.parametrize(
    "argv",
    [
        ["uvicorn", "webapp.main:app"],
        ["uvicorn", "webapp.main:app", "--host", "localhost", "--port", "1"],
        ["uvicorn", "webapp.main:app", "--host", "::1"],
        ["uvicorn", "webapp.main:app", "--uds", "/run/embedmill.sock"],
        ["gunicorn", "webapp.main:app", "--host", "0.0.0.0"],
    ],
)
def test_other_starts_are_not(argv: Sequence[str]) -> None:
    check_address(Settings(), argv)


def test_uvicorns_own_variable_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UVICORN_HOST", "0.0.0.0")
    with pytest.raises(SettingsError):
        check_address(Settings(), ["uvicorn", "webapp.main:app"])


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


def test_the_documentation_says_what_needs_a_key() -> None:
    schema = create_app().openapi()
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            is_open = path in {"/livez", "/readyz"}
            assert ("security" in operation) == (not is_open)
            assert {"401", "403"} <= set(operation["responses"]) or is_open
            assert is_open or {} in operation["security"]


def test_and_where_keys_are_used_that_none_is_a_refusal(
    keys_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "get_settings", lambda: Settings(api_keys_file=keys_file))
    assert main.create_app().openapi()["paths"]["/queue"]["get"]["security"] == [{"key": []}]
