"""The int8 form of a model: made once for all, judged, and close to the original."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tasks.errors import ModelError
from tasks.settings import DEFAULT_MODEL, Settings
from tests.texts import SCRIPTS
from workers import converted
from workers.conversion import judge, measure_overlap
from workers.converted import RECIPE, find_converted
from workers.encoder import build_encoder, count_tokens, encode_texts
from workers.reference import read_paragraphs

ASK = (
    "import sys; from pathlib import Path; from tasks.settings import DEFAULT_MODEL, Settings;"
    "from workers.converted import find_converted;"
    "cache = Path(sys.argv[1]);"
    "print(find_converted(Settings(model=DEFAULT_MODEL, backend='onnx-int8', cache_dir=cache)))"
)


def int8(cache: Path, model: str = DEFAULT_MODEL) -> Settings:
    return Settings(model=model, device="cpu", backend="onnx-int8", cache_dir=cache, threads=1)


def rows(count: int, dimension: int = 32) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
    return np.random.default_rng(7).normal(size=(count, dimension)).astype(np.float32)


@pytest.fixture
def stub(tmp_path: Path) -> Settings:
    """Settings of a folder that could be a model."""
    folder = tmp_path / "stub"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return int8(tmp_path / "cache", model=str(folder))


def test_the_same_vectors_pass_whatever_their_length() -> None:
    assert judge(rows(50), 3 * rows(50)) == ""


def test_vectors_that_lost_their_direction_are_refused() -> None:
    assert "mean cosine" in judge(rows(50), rows(50)[::-1].copy())
    assert "mean cosine" in judge(rows(50), np.full((50, 32), np.nan, dtype=np.float32))


def test_vectors_that_lost_their_neighbours_are_refused() -> None:
    close = 100 + rows(50)  # all but the same direction: small noise changes who is nearest
    noisy = close + rows(100)[50:]
    assert "neighbours" in judge(close, noisy)


def test_overlap_is_the_share_of_common_neighbours() -> None:
    assert measure_overlap(rows(30), rows(30), 10) == 1.0
    assert measure_overlap(rows(400), rows(800)[400:], 10) < 0.2


def test_a_failed_conversion_is_one_sentence_and_leaves_nothing(stub: Settings) -> None:
    with pytest.raises(ModelError, match="stub cannot be converted to int8: "):
        find_converted(stub)
    assert {path.suffix for path in stub.cache_dir.iterdir()} == {".lock"}


def test_a_missing_package_is_named(stub: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converted, "PACKAGES", ("no_such_package",))
    with pytest.raises(ModelError, match=r"no_such_package: install embedmill\[int8\]"):
        find_converted(stub)


def test_a_gpu_is_not_for_it(stub: Settings) -> None:
    with pytest.raises(ModelError, match="runs on CPUs"):
        find_converted(stub.model_copy(update={"device": "cuda"}))


def test_a_folder_that_cannot_be_used_is_named(stub: Settings) -> None:
    stub.cache_dir.write_text("a file")
    with pytest.raises(ModelError, match="EMBED_CACHE_DIR="):
        find_converted(stub)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Converted by two processes that ask at the same time."""
    folder = tmp_path_factory.mktemp("converted")
    asking = [
        subprocess.Popen(
            [sys.executable, "-c", ASK, str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate() for process in asking]
    assert said[0][0] == said[1][0] != "", said
    assert sorted("converting" in errors for _, errors in said) == [False, True]
    return folder


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.timeout(400)
def test_converted_vectors_are_close_to_the_models_own(cache: Path) -> None:
    assert [path.suffix for path in sorted(cache.iterdir())] == ["", ".lock"]
    assert len(list(cache.glob(f"*/{RECIPE}"))) == 1
    own, made = (
        build_encoder(settings)
        for settings in (Settings(model=DEFAULT_MODEL, device="cpu", threads=1), int8(cache))
    )
    assert made.card == own.card
    texts = [*read_paragraphs(150), *SCRIPTS.values(), "", "word " * 1000]
    assert count_tokens(made, texts) == count_tokens(own, texts)
    expected = np.vstack([encode_texts(own, [text]) for text in texts])
    vectors = np.vstack([encode_texts(made, [text]) for text in texts])
    assert (vectors * expected).sum(axis=1).mean() >= 0.99
    assert measure_overlap(expected, vectors, 10) >= 0.88
    # activations have one scale a call: a text's vector depends on its company, but little
    assert (encode_texts(made, texts[:8]) * vectors[:8]).sum(axis=1).min() >= 0.98
