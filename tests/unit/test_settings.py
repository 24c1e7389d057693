"""Settings: one sentence that says what to change."""

import pytest

from tasks.errors import SettingsError
from tasks.settings import Settings, read_settings
from tasks.urls import redact


def read(monkeypatch: pytest.MonkeyPatch, **values: str) -> Settings:
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return read_settings(values)


def test_values_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(monkeypatch, EMBED_QUEUE_LIMIT="7").queue_limit == 7


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"EMBED_MODELL": "x"}, "EMBED_MODELL is not a setting of Embedmill; did you mean EMBED_"),
        ({"EMBED_DEVICE": "gpu"}, "EMBED_DEVICE='gpu'"),
        ({"EMBED_QUEUE_LIMIT": "0"}, "EMBED_QUEUE_LIMIT='0'"),
        ({"EMBED_QDRANT_URL": "localhost:6333"}, "EMBED_QDRANT_URL"),
        ({"EMBED_BROKER_URL": "amqp://localhost"}, "EMBED_BROKER_URL"),
        ({"EMBED_BROKER_URL": "redis://localhost:abc/0"}, "EMBED_BROKER_URL"),
        ({"EMBED_BROKER_URL": "redis://localhost:99999"}, "EMBED_BROKER_URL"),
        ({"EMBED_BROKER_URL": "redis://localhost/abc"}, "EMBED_BROKER_URL"),
        ({"EMBED_QDRANT_URL": "http://[abc"}, "EMBED_QDRANT_URL"),
        ({"EMBED_QDRANT_URL": "http://127.0.0.1:99999"}, "EMBED_QDRANT_URL"),
        ({"EMBED_COLLECTION": "a/b"}, "EMBED_COLLECTION"),
        ({"EMBED_MAX_TEXT_BYTES": "4096", "EMBED_QUEUE_BYTES": "2048"}, "EMBED_QUEUE_BYTES"),
        ({"EMBED_JOB_TTL_S": "60"}, "EMBED_VISIBILITY_TIMEOUT_S"),
    ],
    ids=str,
)
def test_a_wrong_setting_is_named(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str], said: str
) -> None:
    with pytest.raises(SettingsError) as wrong:
        read(monkeypatch, **values)
    assert said in str(wrong.value)
    assert "\n" not in str(wrong.value)


def test_credentials_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read(monkeypatch, EMBED_BROKER_URL="redis://user:secret@host:6379/0?password=secret")
    assert settings.redacted()["broker_url"] == "redis://***@host:6379/0"
    assert redact("http://host:6333") == "http://host:6333"


def test_a_wrong_url_with_credentials_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError) as wrong:
        read(monkeypatch, EMBED_BROKER_URL="http://user:secret@host")
    assert "secret" not in str(wrong.value)
