"""Who owns a data directory: one launcher, or the guardian that clears up after it.

Only `compose` imports it. The lock is the kernel's, so it ends with its holder, however that ends.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import psutil

from compose.errors import DataDirBusy, StackError

LOCK = "lock"
PATIENCE_S = 300.0
POLL_S = 0.1

Role = Literal["launcher", "guardian"]


@contextmanager
def claim(data_dir: Path, role: Role, *, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the directory, which is made when it is missing.

    While a guardian clears up there, `on_wait` is called again and again; it may raise. Raises
    DataDirBusy when a stack runs there, StackError when the directory cannot be used.
    """
    descriptor = _open(data_dir)
    try:
        _lock(descriptor, data_dir, on_wait)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{role} {os.getpid()}".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _open(data_dir: Path) -> int:
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(data_dir / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StackError(f"{data_dir} cannot be used as data directory: {error}") from error


def _lock(descriptor: int, data_dir: Path, on_wait: Callable[[], None]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not _try_lock(descriptor):
        if _is_launcher(descriptor) or time.monotonic() > deadline:
            raise DataDirBusy(
                f"another stack runs on {data_dir}: stop it, or give this one its own --data-dir"
            )
        on_wait()
        time.sleep(POLL_S)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_launcher(descriptor: int) -> bool:
    """Whether the holder said so. A dead one's name may stand there for an instant."""
    role, _, pid = os.pread(descriptor, 64, 0).decode(errors="replace").partition(" ")
    return role == "launcher" and pid.isdigit() and psutil.pid_exists(int(pid))
