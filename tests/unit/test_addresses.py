"""Where commands find the services."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from compose.addresses import WEB_URL, find_services, find_web
from compose.cli import main
from compose.errors import StackError, WebRefused
from compose.loadtest.connection import Address
from compose.services import Options, make_plan
from compose.web_client import WebClient
from tasks.settings import Settings

STACK = {
    "web": {"url": "http://127.0.0.1:1"},
    "redis": {"url": "redis://127.0.0.1:2/0"},
    "qdrant": {"url": "http://127.0.0.1:3"},
}


@pytest.fixture
def running(tmp_path: Path) -> Path:
    """A data directory in which a stack runs."""
    (tmp_path / "stack.json").write_text(json.dumps(STACK))
    return tmp_path


def test_a_running_stack_is_found(running: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EMBED_BROKER_URL")
    settings = Settings(data_dir=running)
    found = find_services(settings)
    assert find_web(settings) == "http://127.0.0.1:1"
    assert (found.broker_url, found.qdrant_url) == ("redis://127.0.0.1:2/0", "http://127.0.0.1:3")


def test_what_is_given_wins(running: Path) -> None:
    settings = Settings(data_dir=running, qdrant_url="http://elsewhere")
    assert find_web(settings, "http://there/") == "http://there"
    assert find_services(settings).qdrant_url == "http://elsewhere"


def test_without_a_stack_the_defaults_hold(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, broker_url="redis://other")
    assert find_web(settings) == WEB_URL
    assert find_services(settings) == settings


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_record_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text(content)
    with pytest.raises(StackError, match=r"stack\.json cannot be read"):
        find_web(Settings(data_dir=tmp_path))


def test_an_isolated_stack_takes_no_given_servers(tmp_path: Path) -> None:
    settings = Settings(broker_url="redis://precious/0", qdrant_url="http://precious")
    plan = make_plan(Options(port=0, isolated=True), settings, tmp_path)
    assert plan.own_redis
    assert plan.own_qdrant
    assert "precious" not in plan.redis_url + plan.qdrant_url
    assert "precious" not in plan.environment["EMBED_BROKER_URL"]
    assert "precious" not in plan.environment["EMBED_QDRANT_URL"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://localhost:80800", "Port out of range"),
        ("http://localhost:abc", "Port could not be cast"),
        ("http://[::1", "Invalid IPv6 URL"),
        ("http://a..b", "no host's name"),
        ("http://", "not an http:// or https:// URL"),
        ("localhost:8080", "not an http:// or https:// URL"),
    ],
)
def test_what_is_no_address_of_a_web_is_said(url: str, said: str) -> None:
    with pytest.raises(WebRefused, match=said):
        WebClient(url)
    with pytest.raises(WebRefused, match=said):
        Address(url, None)


@pytest.mark.parametrize("verb", [["job", "1"], ["loadtest"]])
def test_a_command_says_it_in_a_line_without_credentials(verb: list[str]) -> None:
    result = CliRunner().invoke(main, [*verb, "--url", "http://me:secret@localhost:80800"])
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("Error: 'http://***@localhost:80800' is not a URL: Port")
