"""What the driver says of GPUs, with a stand-in for NVIDIA's library: none needs to be here."""

import subprocess
import sys
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from tasks.presence import GpuUse, WorkerPresence, read_workers
from tests.unit.test_watch import QUEUE
from webapp.metrics import QueueCollector
from workers.gpu_use import GpuMeter

GPUS = (GpuUse("0", 0.93, 1, 2), GpuUse("MIG-7", None, 1, 2))


class NvmlError(Exception):
    """As `pynvml.NVMLError`."""


class Library:
    """As much of `pynvml` as is used: GPU 0, and a part of a GPU that has no utilization."""

    NVMLError = NvmlError

    def __init__(self, *, driver: bool = True) -> None:
        self.driver = driver
        self.lost = False

    def nvmlInit(self) -> None:  # noqa: N802
        if not self.driver:
            raise NvmlError("NVML Shared Library Not Found")

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        if index != 0:
            raise NvmlError("Invalid Argument")
        return "gpu"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        return "part"

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:  # noqa: N802
        if self.lost:
            raise NvmlError("GPU is lost")
        return SimpleNamespace(used=1, total=2, free=1)

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> Any:  # noqa: N802
        if handle == "part":
            raise NvmlError("Not Supported")
        return SimpleNamespace(gpu=93, memory=40)


def test_utilization_and_memory_of_each() -> None:
    found = GpuMeter(["0", "MIG-7"], Library()).read()
    assert tuple(found) == GPUS


def test_a_lost_gpu_is_left_out_while_it_is_lost() -> None:
    library = Library()
    meter = GpuMeter(["0"], library)
    library.lost = True
    assert meter.read() == []
    library.lost = False
    assert len(meter.read()) == 1


@pytest.mark.parametrize(
    ("names", "library"), [(["0"], Library(driver=False)), (["5"], Library()), ([], None)]
)
def test_nothing_is_read_where_nothing_can_be(names: list[str], library: Any) -> None:
    assert GpuMeter(names, library).read() == []


def test_nothing_is_read_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert GpuMeter(["0"]).read() == []


def test_the_main_process_stays_free_of_torch() -> None:
    code = "import sys, workers.gpu_use as g; g.GpuMeter(['0']).read(); print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert "workers.gpu_use" in loaded.stdout.split()
    assert "torch" not in loaded.stdout.split()


def test_metrics_have_them_by_worker() -> None:
    queue = replace(QUEUE, workers=[WorkerPresence("w", 1, 1, 1, None, 0.0, GPUS)])
    registry = CollectorRegistry()
    registry.register(QueueCollector(queue, ready=True))
    shown = generate_latest(registry).decode()
    assert 'embedmill_gpu_utilization_ratio{gpu="0",worker="w"} 0.93' in shown
    assert 'embedmill_gpu_memory_used_bytes{gpu="MIG-7",worker="w"} 1.0' in shown
    assert 'embedmill_gpu_utilization_ratio{gpu="MIG-7"' not in shown


def test_announcements_of_other_versions_can_be_read() -> None:
    row = {"expires_at": 10, "name": "w", "pid": 1, "concurrency": 2, "warm": 2, "card": None}
    newer = row | {"pid": 2, "gpus": [asdict(gpu) for gpu in GPUS], "of_a_later_version": 1}
    found = read_workers({b"w:1": orjson.dumps(row), b"w:2": orjson.dumps(newer)}, 5)
    older, of_newer = found
    assert older == WorkerPresence("w", 1, 2, 2, None)
    assert of_newer.gpus == GPUS
