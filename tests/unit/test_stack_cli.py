"""The command line: what is refused, and how."""

import pytest
from click.testing import CliRunner, Result

from compose.cli import main
from tasks.settings import get_settings


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def test_help_names_the_verbs() -> None:
    result = invoke("--help")
    assert result.exit_code == 0
    assert "up" in result.output
    assert "qdrant" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["up", "--without", "redis,fowler"],
        ["up", "--port", "70000"],
        ["up", "--concurrency", "0"],
        ["up", "--web-workers", "none"],
        ["down"],
    ],
)
def test_a_usage_error_is_status_2(arguments: list[str]) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert "Error: " in result.stderr


def test_a_wrong_setting_is_one_sentence_and_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBED_QUEUE_LIMITS", "12")
    get_settings.cache_clear()
    result = invoke("up")
    assert result.exit_code == 1
    sentence = "EMBED_QUEUE_LIMITS is not a setting of Embedmill; did you mean EMBED_QUEUE_LIMIT?"
    assert result.stderr == f"Error: {sentence}\n"
