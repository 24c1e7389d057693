"""The worker's announcements to the web: that it is there, how many children are warm, which model.

`workers.startup` runs it in the main process. An announcement expires by itself, so a worker that
was killed is gone after `TTL_S`.
"""

import logging
import os
import time

import redis
from celery.worker import state

from tasks.broker import connect
from tasks.messages import ModelCard
from tasks.presence import (
    WorkerPresence,
    announce,
    forget_collections,
    record_collection,
    retire,
)
from tasks.settings import Settings
from tasks.statistics import forget
from workers.gpu_use import GpuMeter
from workers.preflight import Collections
from workers.reports import Report

logger = logging.getLogger(__name__)

INTERVAL_S = 5.0
LOOK_INTERVAL_S = 1.0
"""Between looks for children that have died: as often as `embedmill watch` looks."""
TTL_S = 15.0


class Heartbeat:
    """One worker's announcements; what Redis does not take is logged once and tried again."""

    def __init__(self, settings: Settings, name: str, concurrency: int, gpus: GpuMeter) -> None:
        self._client = connect(settings)
        self._name = name
        self._concurrency = concurrency
        self._gpus = gpus
        self._warm: set[int] = set()
        self._lost: set[int] = set()
        self._card: ModelCard | None = None
        self._silent = False

    def note(self, report: Report) -> None:
        """A child has loaded its model: tell at once, it may be the first."""
        self._warm.add(report.pid)
        self._card = report.card
        self.beat()

    def look(self) -> None:
        """Tell at once of children that are no more: nobody shall see them work."""
        if not all(map(_is_alive, self._warm)):
            self.beat()

    def beat(self) -> None:
        gone = {pid for pid in self._warm if not _is_alive(pid)}
        self._warm -= gone
        self._lost |= gone
        presence = WorkerPresence(
            self._name,
            os.getpid(),
            self._concurrency,
            len(self._warm),
            self._card,
            _busy_s(),
            self._gpus.read(),
        )
        try:
            announce(self._client, presence, ttl_s=TTL_S)
            forget(self._client, self._name, self._lost)
        except (redis.exceptions.RedisError, OSError) as error:
            if not self._silent:
                logger.warning("cannot announce this worker: %s", error)
            self._silent = True
        else:
            self._silent = False
            self._lost.clear()

    def record(self, collections: Collections) -> None:
        """Tell which model made which collection, as far as collections know."""
        try:
            forget_collections(self._client, collections.made_by)
            for name, made_by in collections.made_by.items():
                if made_by.model is not None:
                    record_collection(self._client, name, made_by.model, made_by.dimension)
        except (redis.exceptions.RedisError, OSError) as error:
            logger.warning("cannot record the models of collections: %s", error)

    def retire(self) -> None:
        try:
            retire(self._client, self._name, os.getpid())
            self._client.close()
        except (redis.exceptions.RedisError, OSError) as error:
            logger.warning("cannot announce that this worker stops: %s", error)


def _busy_s() -> float:
    """For how long what runs has run; in threads, a set that changes meanwhile is not looked at."""
    try:
        begun = [request.time_start for request in state.active_requests]
    except RuntimeError:
        return 0.0
    now = time.time()
    return round(max((now - at for at in begun if at), default=0.0), 3)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
