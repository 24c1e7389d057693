"""What processes use: CPU time by role, and memory as the kernel shares it out (PSS)."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

Roles = Mapping[str, Sequence[psutil.Process]]


def family(pid: int) -> list[psutil.Process]:
    """A process and all that it started."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


class CpuMeter:
    """CPU seconds that each role used between two looks; roles are asked for anew at each look,
    and what has ended meanwhile is not counted."""

    def __init__(self, roles: Callable[[], Roles]) -> None:
        self._roles = roles
        self._before = self._read()

    def used_s(self) -> dict[str, float]:
        after = self._read()
        return {
            role: sum(times.get(pid, 0.0) - self._before[role].get(pid, 0.0) for pid in times)
            for role, times in after.items()
        }

    def _read(self) -> dict[str, dict[int, float]]:
        return {
            role: {process.pid: _cpu_s(process) for process in processes}
            for role, processes in self._roles().items()
        }


def _cpu_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def pss_mb(processes: Sequence[psutil.Process]) -> float:
    """Proportional set size of all: a page that n processes share counts 1/n in each.

    Raises OSError where there is no /proc/PID/smaps_rollup (it is Linux').
    """
    return sum(_pss_kb(process.pid) for process in processes) / 1000


def _pss_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise OSError(f"/proc/{pid}/smaps_rollup has no Pss")
