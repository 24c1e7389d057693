"""Where a model is looked for, and the sentences when it is not there."""

import json
from pathlib import Path

import pytest

from tasks.errors import ModelError
from tasks.settings import DEFAULT_MODEL, Settings
from workers.weights import find_weights, read_dimension


def test_the_default_model_comes_from_the_installed_wheel() -> None:
    folder = find_weights(Settings(model=DEFAULT_MODEL))
    assert (folder / "model.safetensors").is_file()
    assert find_weights(Settings(model="all-MiniLM-L6-v2")) == folder


def test_its_short_name_is_the_same_model() -> None:
    assert Settings(model="all-MiniLM-L6-v2").model_name == DEFAULT_MODEL


def test_its_dimension_is_known_without_loading_it() -> None:
    assert read_dimension(Settings(model=DEFAULT_MODEL)) == 384


def test_altered_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.weights.WHEEL_SHA256", "0" * 64)
    with pytest.raises(ModelError, match="are not the published ones"):
        find_weights.__wrapped__(Settings(model=DEFAULT_MODEL))


def test_a_folder_is_taken_as_it_is_and_gives_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "my-model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    settings = Settings(model=str(folder))
    assert find_weights(settings) == folder
    assert settings.model_name == "my-model"
    assert read_dimension(settings) is None


def test_an_empty_folder_holds_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no model"):
        find_weights(Settings(model=str(tmp_path)))


def test_a_path_that_does_not_exist_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a folder"):
        find_weights(Settings(model=str(tmp_path / "absent")))


def test_a_name_that_cannot_be_had_says_what_to_change() -> None:
    with pytest.raises(ModelError, match="EMBED_MODEL=nobody/nothing"):
        find_weights(Settings(model="nobody/nothing"))


def test_a_malformed_name_says_what_to_change() -> None:
    with pytest.raises(ModelError, match="check the name"):
        find_weights(Settings(model="not a name at all"))


@pytest.mark.parametrize(
    ("modes", "dimension"),
    [
        ({"pooling_mode_mean_tokens": True}, 768),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, None),
    ],
)
def test_a_dimension_is_only_claimed_when_it_is_certain(
    tmp_path: Path, modes: dict[str, bool], dimension: int | None
) -> None:
    kinds = ["Transformer", "Pooling"]
    modules = [{"type": f"sentence_transformers.models.{kind}"} for kind in kinds]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "1_Pooling").mkdir()
    config = json.dumps({"word_embedding_dimension": 768, **modes})
    (tmp_path / "1_Pooling" / "config.json").write_text(config)
    assert read_dimension(Settings(model=str(tmp_path))) == dimension
