"""What a process that embeds tells of itself once a second: what its passes cost, and how it is.

`workers.startup` starts and stops it after the model is loaded; `workers.execution` hands it each
pass. Passes only add numbers in memory: a thread sends them, so that no pass waits for Redis.
A process that is killed takes the measurements of its last second with it.
"""

import logging
import os
import time
from collections import deque
from threading import Event, Lock, Thread

import psutil
import redis

from tasks.broker import connect
from tasks.errors import BrokerDown
from tasks.ledger import run
from tasks.settings import Settings
from tasks.snapshot import read_queue
from tasks.statistics import COUNTERS, ChildStatistics, Increments, forget, record
from workers.timings import Timings

logger = logging.getLogger(__name__)
queue_log = logging.getLogger("embedmill.queue")
queue_log.setLevel(logging.INFO)  # asked for by a setting: also where Celery logs warnings only

INTERVAL_S = 1.0
IDLE_INTERVAL_S = 5.0
WINDOW_S = 10.0
"""Over which rates are taken: several passes of a CPU."""


class Publisher:
    """One process' sums that are not sent yet, and the thread that sends them."""

    def __init__(self, settings: Settings, worker: str) -> None:
        self._settings, self._worker = settings, worker
        self._client = connect(settings)
        self._process = psutil.Process()
        self._lock = Lock()
        self._increments = Increments()
        self._texts = self._last_texts = 0
        self._seen = deque([(time.monotonic(), 0, time.process_time())])
        self._sent_s = 0.0
        self._silent = False
        self._stopping = Event()
        self._threads = [Thread(target=self._run, name="statistics", daemon=True)]
        if settings.log_queue_s is not None:
            talk = Thread(target=self._talk, args=(settings.log_queue_s,), daemon=True)
            self._threads.append(talk)

    def start(self) -> None:
        """Say at once that this process is there."""
        self._send()
        for thread in self._threads:
            thread.start()

    def add(self, timings: Timings) -> None:
        """A pass has ended. One without texts was none of the model."""
        if not timings.texts:
            return
        with self._lock:
            for name, seconds in timings.seconds.items():
                self._increments.observe(name, seconds)
            for wait_s in timings.queue_waits_s:
                self._increments.observe("queue_wait", wait_s)
            self._increments.observe("pass_texts", timings.texts)
            self._increments.observe("pass_tokens", timings.computed_tokens)
            for name in COUNTERS:
                self._increments.count(name, getattr(timings, name))
            self._texts += timings.texts
            self._last_texts = timings.texts

    def add_query(self, seconds: float) -> None:
        """Questions were answered together."""
        with self._lock:
            self._increments.observe("query", seconds)

    def stop(self) -> None:
        """Send the rest, and take this process off the list."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        self._send()
        try:
            forget(self._client, self._worker, [os.getpid()])
            self._client.close()
        except (redis.exceptions.RedisError, OSError) as error:
            logger.warning("cannot say that this process ends: %s", error)

    def _run(self) -> None:
        while not self._stopping.wait(INTERVAL_S):
            idle = not self._increments.fields
            if not idle or time.monotonic() - self._sent_s >= IDLE_INTERVAL_S:
                self._send()

    def _talk(self, interval_s: float) -> None:
        while not self._stopping.wait(interval_s):
            try:
                queue = read_queue(self._client, self._settings)
            except BrokerDown as error:
                queue_log.warning("pid %d: %s", os.getpid(), error)
            else:
                queue_log.info("pid %d: batch %d, %s", os.getpid(), self._last_texts, queue)

    def _send(self) -> None:
        """What Redis does not take is kept, and sent with the next."""
        with self._lock:
            child = self._describe()
            sending, self._increments = self._increments, Increments()
        self._sent_s = time.monotonic()
        try:
            run(self._client, record(child, sending, self._settings))
        except BrokerDown as error:
            with self._lock:
                for name, by in sending.fields.items():
                    self._increments.count(name, by)
            if not self._silent:
                logger.warning("statistics are not sent: %s", error)
            self._silent = True
        else:
            self._silent = False

    def _describe(self) -> ChildStatistics:
        now = (time.monotonic(), self._texts, time.process_time())
        while len(self._seen) > 1 and now[0] - self._seen[1][0] >= WINDOW_S:
            self._seen.popleft()
        at_s, texts, cpu_s = self._seen[0]
        self._seen.append(now)
        span_s = max(now[0] - at_s, INTERVAL_S)
        return ChildStatistics(
            worker=self._worker,
            pid=os.getpid(),
            last_texts=self._last_texts,
            texts_per_s=round((now[1] - texts) / span_s, 1),
            cpu_share=round((now[2] - cpu_s) / span_s, 3),
            cpu_s=round(now[2], 3),
            rss_bytes=self._process.memory_info().rss,
        )


_publisher: Publisher | None = None


def start_publishing(settings: Settings, worker: str) -> None:
    """In each process that embeds, after any fork."""
    global _publisher  # noqa: PLW0603  # one a process, as its model
    _publisher = Publisher(settings, worker)
    _publisher.start()


def publish(timings: Timings) -> None:
    """Add a pass; nothing happens where nobody publishes, as where tasks run eagerly."""
    if _publisher is not None:
        _publisher.add(timings)


def publish_query(seconds: float) -> None:
    """The same for questions that were answered together, in so many seconds."""
    if _publisher is not None:
        _publisher.add_query(seconds)


def stop_publishing() -> None:
    """Send the rest; doing it again changes nothing."""
    global _publisher
    publisher, _publisher = _publisher, None
    if publisher is not None:
        publisher.stop()
