"""The settings file: below the environment, as strict, the same for all processes of a stack."""

from pathlib import Path

import pytest

from compose.checks import check_settings
from compose.services import Options, make_plan
from tasks import settings_file
from tasks.errors import SettingsError
from tasks.settings import Settings, child_environment, read_settings, settings_for


@pytest.fixture(autouse=True)
def _no_settings_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EMBED_QUEUE_LIMIT", "EMBED_THREADS", "EMBED_BROKER_URL", "EMBED_QDRANT_URL"):
        monkeypatch.delenv(name, raising=False)


def write(folder: Path, text: str) -> Path:
    path = folder / settings_file.NAME
    path.write_text(text)
    return path


def test_a_file_in_the_data_directory_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, "# tuned\nEMBED_QUEUE_LIMIT=7\nexport EMBED_THREADS='2'\n")
    settings = read_settings({"EMBED_DATA_DIR": str(tmp_path)})
    assert (settings.queue_limit, settings.threads) == (7, 2)
    assert settings.file == path


def test_without_a_file_none_is_named(tmp_path: Path) -> None:
    assert read_settings({"EMBED_DATA_DIR": str(tmp_path)}).file is None


def test_the_environment_wins_unless_it_is_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "EMBED_QUEUE_LIMIT=7\nEMBED_THREADS=3\n")
    environment = {"EMBED_QUEUE_LIMIT": "8", "EMBED_THREADS": ""}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = read_settings({**environment, "EMBED_DATA_DIR": str(tmp_path)})
    assert (settings.queue_limit, settings.threads) == (8, 3)


def test_another_data_directory_has_its_own_file(tmp_path: Path) -> None:
    write(tmp_path, "EMBED_QUEUE_LIMIT=7\n")
    assert settings_for(tmp_path).queue_limit == 7
    assert settings_for(None).file is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("EMBED_QEUE_LIMIT=7", "EMBED_QEUE_LIMIT is not a setting of Embedmill; did you mean"),
        ("OMP_NUM_THREADS=7", "OMP_NUM_THREADS is not a setting of Embedmill"),
        ("EMBED_QUEUE_LIMIT", "EMBED_QUEUE_LIMIT has no value"),
        ("EMBED_QUEUE_LIMIT=0", "EMBED_QUEUE_LIMIT='0': "),
        ("EMBED_DATA_DIR=there", "EMBED_DATA_DIR says where this file is"),
        ("\ufffe".encode("utf-16"), "cannot be read"),
    ],
    ids=str,
)
def test_what_is_wrong_is_named_with_its_file(tmp_path: Path, text: str | bytes, said: str) -> None:
    path = tmp_path / settings_file.NAME
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(SettingsError) as wrong:
        read_settings({"EMBED_DATA_DIR": str(tmp_path)})
    assert str(wrong.value).startswith(f"{path}")
    assert said in str(wrong.value)


def test_what_is_wrong_in_the_environment_is_not_the_files_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "EMBED_QUEUE_LIMIT=7\n")
    monkeypatch.setenv("EMBED_QUEUE_LIMIT", "0")
    with pytest.raises(SettingsError, match=r"^EMBED_QUEUE_LIMIT='0'"):
        read_settings({"EMBED_QUEUE_LIMIT": "0", "EMBED_DATA_DIR": str(tmp_path)})


def test_children_get_what_the_file_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "EMBED_QUEUE_LIMIT=7\nEMBED_THREADS=3\n")
    monkeypatch.setenv("EMBED_THREADS", "1")
    children = child_environment(path, EMBED_MODEL="fake")
    assert children["EMBED_QUEUE_LIMIT"] == "7"
    assert children["EMBED_THREADS"] == "1"


def test_a_stack_takes_its_file_along(tmp_path: Path) -> None:
    write(tmp_path, "EMBED_QUEUE_LIMIT=7\nEMBED_WEB_WORKERS=3\n")
    plan = make_plan(Options(port=0), settings_for(tmp_path), tmp_path / "elsewhere")
    assert plan.environment["EMBED_QUEUE_LIMIT"] == "7"
    assert plan.settings.web_workers == 3


def test_the_doctor_names_it(tmp_path: Path) -> None:
    path = write(tmp_path, "EMBED_QUEUE_LIMIT=7\n")
    said = [finding.detail for finding in check_settings(settings_for(tmp_path))]
    assert any(str(path) in detail for detail in said)
    assert any("EMBED_QUEUE_LIMIT=7" in detail for detail in said)
    assert not any(settings_file.NAME in f.detail for f in check_settings(Settings()))
