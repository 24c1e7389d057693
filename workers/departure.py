"""A worker that is told to stop does not wait for a Redis that hangs.

Celery's main process goes on trying to reach the broker, for ever and deaf to signals. Nothing can
be acknowledged or given back then; what the worker holds comes back when its leases end.
`workers.startup` starts this in the main process, in a thread, as the event loop may be stuck.
"""

import logging
import os
import threading
import time

import redis

from tasks.broker import connect
from tasks.settings import Settings

logger = logging.getLogger(__name__)

SILENCE_S = 20.0
"""Without an answer; a Redis whose disk stalls is silent for some seconds as well."""
PAUSE_S = 1.0
EX_UNAVAILABLE = 69
"""The exit status then (sysexits.h)."""


def leave_when_redis_is_silent(settings: Settings) -> None:
    """From now on; returns at once."""
    threading.Thread(target=_watch, args=(settings,), name="departure", daemon=True).start()


def _watch(settings: Settings) -> None:
    heard_at = time.monotonic()
    with connect(settings) as client:
        while time.monotonic() - heard_at < SILENCE_S:
            try:
                client.ping()
                heard_at = time.monotonic()
            except (redis.RedisError, OSError) as error:
                logger.debug("while stopping: %s", error)
            time.sleep(PAUSE_S)
    logger.critical(
        "Redis has been silent for %.0f s: this worker ends, what it holds comes back when its "
        "leases end",
        SILENCE_S,
    )
    logging.shutdown()
    os._exit(EX_UNAVAILABLE)  # pool children end with it
