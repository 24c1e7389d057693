"""API keys on a real web process."""

import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from compose.cli import main
from compose.web_client import WebClient
from tasks.settings import get_settings
from tests.processes import Program, free_port
from tests.redis_server import RedisServer
from tests.web_server import WebServer, local_web


@pytest.fixture
def keys_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("EMBED_API_KEYS_FILE", str(tmp_path / "keys.jsonl"))
    get_settings.cache_clear()
    yield tmp_path / "keys.jsonl"
    get_settings.cache_clear()


@pytest.fixture
def web(broker: RedisServer, keys_file: Path, tmp_path: Path) -> Iterator[WebServer]:
    add("admin", "admin")
    env = {"EMBED_BROKER_URL": broker.url, "EMBED_API_KEYS_FILE": str(keys_file)}
    with local_web(tmp_path, env) as server:
        yield server


def add(name: str, scope: str, *options: str) -> str:
    result = CliRunner().invoke(main, ["keys", "add", name, "--scope", scope, *options])
    assert result.exit_code == 0, result.stderr
    return result.stdout.strip()


def test_a_key_works_until_it_is_revoked_and_is_never_logged(
    web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = add("loader", "ingest")
    with httpx.Client(base_url=web.url) as client:
        refused = client.post("/embed", json={"text": "a"})
        assert (refused.status_code, refused.json()["code"]) == (401, "key_missing")
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.headers["www-authenticate"] == "Bearer"
        client.headers["Authorization"] = f"Bearer {key}"
        assert client.post("/embed", json={"text": "a"}).status_code == 202
        assert client.get("/metrics").json()["code"] == "scope_missing"
        assert CliRunner().invoke(main, ["keys", "revoke", "loader"]).exit_code == 0
        assert client.post("/embed", json={"text": "a"}).json()["code"] == "key_invalid"
    assert key not in web.program.output()
    monkeypatch.setenv("EMBED_API_KEY", add("commands", "ingest"))
    get_settings.cache_clear()
    with WebClient(web.url) as commands:
        assert commands.embed([b'{"text": "a"}'], {}, "k").accepted == 1


def test_browsers_get_no_leave_for_other_origins(web: WebServer) -> None:
    """Preflights carry no key, so they end at the door; no answer has a CORS header."""
    headers = {
        "Origin": "https://example.org",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    key = {"Authorization": f"Bearer {add('loader', 'ingest')}"}
    with httpx.Client(base_url=web.url, headers=headers) as client:
        preflights = [client.options("/embed"), client.options("/embed", headers=key)]
        answers = [client.get("/livez"), client.post("/embed", json={"text": "a"}, headers=key)]
    assert [answer.status_code for answer in (*preflights, *answers)] == [401, 405, 200, 202]
    for answer in (*preflights, *answers):
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_a_start_that_would_be_open_to_others_is_refused(
    broker: RedisServer, tmp_path: Path
) -> None:
    argv = [sys.executable, "-m", "uvicorn", "webapp.main:app", "--host", "0.0.0.0"]
    program = Program(
        [*argv, "--port", str(free_port())],
        log=tmp_path / "web.log",
        env={"EMBED_BROKER_URL": broker.url},
    )
    assert program.wait() == 1
    assert program.output().strip() == (
        "embedmill: the web does not listen on 0.0.0.0 without API keys: "
        "set EMBED_API_KEYS_FILE, and make keys with `embedmill keys add`"
    )


def test_and_is_not_tried_again_by_a_uvicorn_with_several_processes(
    broker: RedisServer, tmp_path: Path
) -> None:
    argv = [sys.executable, "-m", "uvicorn", "webapp.main:app", "--host", "0.0.0.0"]
    program = Program(
        [*argv, "--port", str(free_port()), "--workers", "2"],
        log=tmp_path / "web.log",
        env={"EMBED_BROKER_URL": broker.url},
    )
    try:
        program.wait()
    finally:
        program.stop()
    assert "does not listen on 0.0.0.0 without API keys" in program.output()
