"""How busy the GPU is, where a tool that came with it says so. Only `compose.tuning` imports it.

`nvidia-smi` on Linux; `powermetrics` on a Mac, which only root may run. A thread reads the tool's
lines as they come, so that a sample costs nothing.
"""

import os
import re
import shutil
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

INTERVAL_MS = 500
KEPT = 10_000

NVIDIA = (
    "nvidia-smi",
    *("--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"),
    *("-lms", str(INTERVAL_MS)),
)
APPLE = ("powermetrics", "--samplers", "gpu_power", "-i", str(INTERVAL_MS))

_APPLE_LINE = re.compile(r"GPU (?:HW )?active residency:\s*([\d.]+)\s*%", re.IGNORECASE)


def parse_nvidia(line: str) -> float | None:
    """A line is one GPU's utilization in percent; 0 to 1."""
    with suppress(ValueError):
        return float(line) / 100
    return None


def parse_apple(line: str) -> float | None:
    """The line of a report that says how long the GPU was active; 0 to 1."""
    found = _APPLE_LINE.search(line)
    return float(found[1]) / 100 if found else None


class GpuMeter:
    """A context; without a tool it knows nothing."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque(maxlen=KEPT)
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        command, parse = _find_tool()
        if command:
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            threading.Thread(target=self._read, args=(self._process, parse), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def mean(self, since_s: float, until_s: float) -> float | None:
        """Between two times of the monotonic clock, over all GPUs; None where nothing was seen."""
        seen = [share for at, share in list(self._samples) if since_s <= at <= until_s]
        return sum(seen) / len(seen) if seen else None

    def _read(self, process: subprocess.Popen[str], parse: Callable[[str], float | None]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                share = parse(line)
                if share is not None:
                    self._samples.append((time.monotonic(), share))


def _find_tool() -> tuple[tuple[str, ...], Callable[[str], float | None]]:
    if shutil.which(NVIDIA[0]):
        return NVIDIA, parse_nvidia
    if shutil.which(APPLE[0]) and os.geteuid() == 0:
        return APPLE, parse_apple
    return (), parse_nvidia
