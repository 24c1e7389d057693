"""GPUs are counted without touching them, and only where the model will run on them."""

from pathlib import Path

import pytest

from tasks import gpus
from tasks.gpus import list_gpus
from tasks.settings import Settings


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The driver's folder of a machine with two GPUs, and a torch with CUDA."""
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(gpus, "version", lambda _: "2.13.0")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_all_of_the_machine(driver: Path, device: str) -> None:
    assert list_gpus(Settings(model="m", device=device), driver) == ["0", "1"]


def test_only_those_that_are_visible(driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1, GPU-8d1c")
    assert list_gpus(Settings(model="m"), driver) == ["1", "GPU-8d1c"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert list_gpus(Settings(model="m"), driver) == []


@pytest.mark.parametrize(
    "settings",
    [
        Settings(model="fake"),
        Settings(model="m", device="cpu"),
        Settings(model="m", device="mps"),
        Settings(model="m", backend="onnx-int8"),
    ],
)
def test_none_for_a_model_that_runs_elsewhere(driver: Path, settings: Settings) -> None:
    assert list_gpus(settings, driver) == []


def test_none_for_a_torch_without_cuda(driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "version", lambda _: "2.13.0+cpu")
    assert list_gpus(Settings(model="m"), driver) == []


def test_none_without_a_driver(tmp_path: Path) -> None:
    assert list_gpus(Settings(model="m"), tmp_path / "absent") == []
