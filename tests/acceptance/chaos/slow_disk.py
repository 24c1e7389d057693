"""A disk that is slow to say that data is safe, for one process: its fsyncs are made to wait."""

import shutil
import subprocess
from pathlib import Path

import pytest

USUAL_MS, STALL_MS, STALL_EVERY = 5, 1000, 400
"""Each call takes as long as on a disk that turns; one in so many as on one that is overloaded."""

SOURCE = f"""
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int late(long number, int fd) {{
    static unsigned calls;
    long ms = ++calls % {STALL_EVERY} ? {USUAL_MS} : {STALL_MS};
    struct timespec pause = {{ms / 1000, ms % 1000 * 1000000L}};
    nanosleep(&pause, 0);
    return syscall(number, fd);
}}

int fsync(int fd) {{ return late(SYS_fsync, fd); }}
int fdatasync(int fd) {{ return late(SYS_fdatasync, fd); }}
"""


def slow_disk_env(folder: Path) -> dict[str, str]:
    """The environment of a process with such a disk; skips the test where none can be built."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or not Path("/proc/self").exists():
        pytest.skip("a slow disk is simulated with LD_PRELOAD: that needs Linux and a C compiler")
    source, library = folder / "slow_disk.c", folder / "slow_disk.so"
    source.write_text(SOURCE)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    return {"LD_PRELOAD": str(library)}
