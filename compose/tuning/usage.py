"""What a worker and its servers use of the machine; only `compose.tuning` imports it."""

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from compose.tuning.gpu import GpuMeter
from compose.tuning.measurements import Usage

CGROUP = Path("/sys/fs/cgroup")


class UsageMeter:
    """From its making to `read`. Roles are leaders' pids, all that they have started included."""

    def __init__(self, roles: Mapping[str, int], gpu: GpuMeter) -> None:
        self._roles, self._gpu = roles, gpu
        self._began_s = time.monotonic()
        self._machine_s = _machine_cpu_s()
        self._before = self._cpu_s()

    def read(self) -> Usage:
        now_s = time.monotonic()
        seconds = max(now_s - self._began_s, 1e-6)
        used = {role: max(s - self._before[role], 0.0) for role, s in self._cpu_s().items()}
        others_s = _machine_cpu_s() - self._machine_s - sum(used.values())
        return Usage(
            cores={role: round(s / seconds, 3) for role, s in used.items()},
            other_cores=round(max(others_s, 0.0) / seconds, 3),
            gpu=self._gpu.mean(self._began_s, now_s),
        )

    def _cpu_s(self) -> dict[str, float]:
        return {role: sum(map(_cpu_s, family(pid))) for role, pid in self._roles.items()}


def family(pid: int) -> list[psutil.Process]:
    """A process and all that it has started; nothing when it has gone."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def memory_bytes(pid: int) -> int:
    """Of a process and all that it has started, a shared page counted once: PSS on Linux, elsewhere
    what is theirs alone."""
    return sum(map(_memory_bytes, family(pid)))


def available_bytes(cgroup: Path = CGROUP) -> int:
    """Memory that may still be taken without swapping, within a container's limit."""
    available = int(psutil.virtual_memory().available)
    with suppress(OSError, ValueError):
        most = int((cgroup / "memory.max").read_text())
        available = min(available, most - int((cgroup / "memory.current").read_text()))
    return available


def _memory_bytes(process: psutil.Process) -> int:
    with suppress(psutil.Error):
        info = process.memory_full_info()
        return int(getattr(info, "pss", 0) or info.uss)
    return 0


def _cpu_s(process: psutil.Process) -> float:
    with suppress(psutil.Error):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0


def _machine_cpu_s() -> float:
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # in user already
    return float(sum(times) - idle - guests)
