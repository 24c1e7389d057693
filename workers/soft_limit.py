"""Celery's soft time limit, as an error that is nobody's fault until a document exceeds it alone.

billiard raises it out of a signal handler, wherever the child is. As it says of itself that it is
retryable, whatever catches errors of texts on the way lets it pass.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from billiard.pool import SIG_SOFT_TIMEOUT, soft_timeout_sighandler
from celery.exceptions import SoftTimeLimitExceeded

from tasks.errors import EmbedError


class OutOfTime(EmbedError, SoftTimeLimitExceeded):
    """The job has worked for as long as its soft limit."""

    default_code = "time_limit"
    retryable = True


@contextmanager
def soft_limit_passes() -> Iterator[None]:
    """In the block a soft limit raises OutOfTime. Nothing is changed outside of pool children,
    where the signal means something else."""
    if signal.getsignal(SIG_SOFT_TIMEOUT) is not soft_timeout_sighandler:
        yield
        return
    signal.signal(SIG_SOFT_TIMEOUT, _raise)
    try:
        yield
    finally:
        signal.signal(SIG_SOFT_TIMEOUT, soft_timeout_sighandler)


def _raise(_number: int, _frame: FrameType | None) -> NoReturn:
    raise OutOfTime("the soft time limit was exceeded")
