"""Whether this worker is stopping: one byte that its main process shares with its pool children.

A child that waits for an absent store gives its work back when it is set, so that SIGTERM ends a
worker in bounded time. It is shared over forks; where children are spawned they see it as unset,
and wait until `EMBED_STORE_WAIT_S` is over.
"""

import mmap

_flag = mmap.mmap(-1, 1)


def begin_draining() -> None:
    """Said by the main process: finish or give back what you hold."""
    _flag[0] = 1


def is_draining() -> bool:
    return _flag[0] == 1
