"""How long each pool child has not worked on the job that it runs, as it waited for an absent store
or answered queries.

Children write, their worker's main process reads: a time limit counts work, not waiting. It is
memory shared over forks; children that are spawned write what nobody reads, and their limits count
the wait as well.
"""

import mmap
import struct
import time
from threading import Lock

from billiard import current_process

CHILDREN = 1024
"""More than anybody starts; what further ones wait is not told."""
_SLOT = struct.Struct("=dd")
"""Seconds that were waited, and since when this child waits; 0 when it does not."""

_shared = mmap.mmap(-1, CHILDREN * _SLOT.size)
_writing = Lock()
"""A child's thread that stores waits while another one answers queries."""


def begin_work() -> None:
    """Said by a child: a job begins, in which it has not waited yet."""
    with _writing:
        _write(0.0, 0.0)


def begin_waiting(since: float) -> None:
    """Said by a child that waits, since that moment of `time.monotonic()`."""
    with _writing:
        waited_s, already = _read(_own())
        _write(waited_s, already or since)


def end_waiting() -> None:
    """Said by a child: it works again, if it has waited."""
    with _writing:
        waited_s, since = _read(_own())
        if since:
            _write(waited_s + time.monotonic() - since, 0.0)


def add_wait(seconds: float) -> None:
    """Said by a child that has done something else for so long."""
    with _writing:
        waited_s, since = _read(_own())
        _write(waited_s + seconds, since)


def read_waited_s(child: int) -> float:
    """Seconds that the child of this index has waited in its present job, until now."""
    waited_s, since = _read(child)
    return waited_s + (time.monotonic() - since if since else 0.0)


def _own() -> int:
    """The index in the pool, which the next child inherits; none outside of pools."""
    return int(getattr(current_process(), "index", CHILDREN))


def _read(child: int) -> tuple[float, float]:
    if not 0 <= child < CHILDREN:
        return 0.0, 0.0
    waited_s, since = _SLOT.unpack_from(_shared, child * _SLOT.size)
    return waited_s, since


def _write(waited_s: float, since: float) -> None:
    child = _own()
    if 0 <= child < CHILDREN:
        _SLOT.pack_into(_shared, child * _SLOT.size, waited_s, since)
