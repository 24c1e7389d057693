"""The NVIDIA GPUs of this machine, as the driver lists them. Any package may import it.

Without CUDA and without torch: a process that has touched CUDA can fork no more.
"""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tasks.settings import Settings, read_visible_gpus

DRIVER = Path("/proc/driver/nvidia/gpus")
"""One folder a GPU, where the driver is loaded. Only Linux has it."""


def list_gpus(settings: Settings, driver: Path = DRIVER) -> list[str]:
    """What CUDA_VISIBLE_DEVICES calls those that the settings' model will run on.

    Empty where it runs on the CPU: by setting, by backend, or because torch is built without CUDA.
    """
    if settings.model == "fake" or settings.backend == "onnx-int8":
        return []
    if settings.device not in {"auto", "cuda"} or not _torch_knows_cuda() or not driver.is_dir():
        return []
    visible = read_visible_gpus()
    if visible is not None:
        return visible
    return [str(number) for number, _ in enumerate(driver.iterdir())]


def _torch_knows_cuda() -> bool:
    try:
        return not version("torch").endswith("+cpu")
    except PackageNotFoundError:
        return False
