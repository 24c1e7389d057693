"""How busy and how full this worker's NVIDIA GPUs are, asked of the driver. The heartbeat uses it.

Through NVML, which touches no CUDA: a process that has initialized CUDA can fork no more, one that
has initialized NVML can. torch counts devices that way for this very reason (`is_available` and
PYTORCH_NVML_BASED_CUDA_CHECK). Not in a thread: a child that is forked while another thread holds
NVML's lock would wait for it for ever.
"""

import logging
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

from tasks.presence import GpuUse

logger = logging.getLogger(__name__)


class GpuMeter:
    """The GPUs that `tasks.gpus` lists; those that cannot be asked are left out."""

    def __init__(self, names: Sequence[str], library: Any = None) -> None:
        """`library` is `pynvml`, of the package nvidia-ml-py. Without it, or without a driver,
        there is nothing to read; that is said once."""
        self._handles: dict[str, Any] = {}
        if not names:
            return
        try:
            self._nvml = library or import_module("pynvml")
        except ImportError:
            logger.info("GPU use is not reported: nvidia-ml-py is not installed")
            return
        try:
            self._nvml.nvmlInit()
            self._handles = {name: self._find(name) for name in names}
        except self._nvml.NVMLError as error:
            logger.warning("GPU use is not reported: %s", error)

    def read(self) -> list[GpuUse]:
        """As they are now."""
        return list(self._read_all())

    def _find(self, name: str) -> Any:
        """By number or UUID. NVML numbers by bus, CUDA by speed: the same where GPUs are."""
        if name.isdecimal():
            return self._nvml.nvmlDeviceGetHandleByIndex(int(name))
        return self._nvml.nvmlDeviceGetHandleByUUID(name)

    def _read_all(self) -> Iterator[GpuUse]:
        for name, handle in self._handles.items():
            try:
                memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
            except self._nvml.NVMLError:
                continue  # lost, or in a reset; the next look may find it again
            yield GpuUse(name, self._utilization(handle), int(memory.used), int(memory.total))

    def _utilization(self, handle: Any) -> float | None:
        """Parts of a GPU (MIG) have none."""
        try:
            return float(self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu) / 100
        except self._nvml.NVMLError:
            return None
