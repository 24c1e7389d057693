"""Capacity never leaks: documents whose message has gone are settled as cancelled.

`celery purge`, or a hand in Redis, takes messages away whose documents then would be outstanding
for ever. `workers.startup` runs the audit in a thread of each worker's main process; a lock in
Redis lets one worker do it at a time.

    suspects   open jobs older than the oldest waiting message that workers do not wholly hold
    missing    their documents that no message anywhere carries: looked for twice, with a pause

Looking is not atomic, so the order counts: what workers hold, then the queues from their newest end
on, then again what workers hold. A message that moves meanwhile is seen in one of the places.
"""

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from tasks.broker import connect, redis_errors, text
from tasks.errors import BrokerDown, JobNotFound
from tasks.ledger import JOBS, Call, Ledger, Script, job_key, run
from tasks.messages import HEADER, QUEUE, Outcome
from tasks.roster import read_roster
from tasks.settings import Settings
from tasks.snapshot import UNACKED

logger = logging.getLogger(__name__)

INTERVAL_S = 10
GRACE_S = 10.0
"""Younger jobs are not suspected."""
PAUSE_S = 2.0
"""Between the two looks: kombu's own transport fetches a message first and records it then."""
JOBS_PER_RUN = 1000
"""The oldest; what workers hold has to be among fewer, which is so for any sane prefetch."""
PAGE_MESSAGES = 64
"""Read by one script call: 64 messages have some 20 MB at most."""
REST = 4
"""Times as long as a page took nothing more is read: a long queue costs a fifth of Redis at most,
and only while there are suspects."""

LOCK = "embedmill:audit"
LOCK_S = 300
"""Longer than an audit; after it the lock keeps the interval."""
CODE = "message_gone"
DETAIL = "no queue and no worker has its message any more: it was purged or removed by hand"

PLACES = Script("places")
Span = tuple[str, int, int]
"""Job, first index and count of a message."""
Documents = dict[str, set[tuple[int, int]]]
"""Open documents by job: index, and size as the ledger keeps it. Its sign turns when work begins,
so that a document which is begun between two looks is not the same one in both."""


class Audit:
    """One worker's part in it: `start` and `stop` from the main process, `run` for one audit."""

    def __init__(
        self, settings: Settings, *, grace_s: float = GRACE_S, pause_s: float = PAUSE_S
    ) -> None:
        self._settings = settings
        self._client = connect(settings)
        self._grace_s, self._pause_s = grace_s, pause_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run_often, name="audit", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Does not wait for an audit that runs: what it still settles is right."""
        self._stopped.set()

    def run(self) -> int:
        """Settle what is missing; how many documents that was. Raises BrokerDown."""
        with redis_errors(self._settings.broker_url):
            missing = self._look_twice(self._suspects())
        return sum(self._settle(job, documents) for job, documents in missing.items())

    def find_missing(self, job: str) -> set[int]:
        """Indices of the job's open documents that no message carries. Raises BrokerDown."""
        with redis_errors(self._settings.broker_url):
            return {index for index, _ in self._look_twice([job]).get(job, ())}

    def _run_often(self) -> None:
        while not self._stopped.wait(INTERVAL_S):
            try:
                with redis_errors(self._settings.broker_url):
                    mine = self._client.set(LOCK, "", nx=True, ex=LOCK_S)
                if mine:
                    self.run()
                    with redis_errors(self._settings.broker_url):
                        self._client.expire(LOCK, INTERVAL_S)
            except BrokerDown as error:
                logger.debug("no audit now: %s", error)

    def _suspects(self) -> list[str]:
        """Jobs that could not be open any more if the queue is first in, first out."""
        until = min(self._now() - self._grace_s, self._oldest_waiting())
        found = self._client.zrange(
            JOBS, "-inf", f"({until}", byscore=True, offset=0, num=JOBS_PER_RUN
        )
        opened = self._open(map(text, found))
        return list(_uncarried(opened, self._spans(UNACKED))) if opened else []

    def _oldest_waiting(self) -> float:
        """When the job of the message was accepted that will be fetched next."""
        length = self._client.llen(QUEUE)
        for job, _, _ in self._page(QUEUE, max(length - 1, 0))[1]:
            accepted_at = self._client.zscore(JOBS, job)
            return float("inf") if accepted_at is None else float(accepted_at)
        return float("inf")

    def _look_twice(self, jobs: Collection[str]) -> Documents:
        first = self._missing(jobs)
        if not first or self._stopped.wait(self._pause_s):
            return {}
        both = {job: opened & first[job] for job, opened in self._missing(first).items()}
        return {job: opened for job, opened in both.items() if opened}

    def _missing(self, jobs: Collection[str]) -> Documents:
        left = self._open(jobs)
        for place in (UNACKED, *(self._queues() if left else ()), UNACKED):
            if not left:
                break
            left = _uncarried(left, self._spans(place))
        return left

    def _queues(self) -> list[str]:
        """Any list that is not ours may be one: users name their own."""
        keys = map(text, self._client.scan_iter(count=1000, _type="list"))
        return [key for key in keys if not key.startswith("embedmill:")]

    def _open(self, jobs: Iterable[str]) -> Documents:
        names = list(jobs)
        pipe = self._client.pipeline(transaction=False)
        for job in names:
            pipe.hgetall(f"{job_key(job)}:open")
        return {
            job: {(int(index), int(size)) for index, size in sizes.items()}
            for job, sizes in zip(names, pipe.execute(), strict=True)
            if sizes
        }

    def _spans(self, place: str) -> Iterator[Span]:
        cursor = -1
        while cursor:
            began = time.monotonic()
            cursor, spans = self._page(place, max(cursor, 0))
            yield from spans
            if cursor:
                self._stopped.wait(REST * (time.monotonic() - began))

    def _page(self, place: str, cursor: int) -> tuple[int, list[Span]]:
        url = self._settings.broker_url
        return run(
            self._client, Call(PLACES, [place], [HEADER, cursor, PAGE_MESSAGES], _read_page, url)
        )

    def _settle(self, job: str, documents: Collection[tuple[int, int]]) -> int:
        try:
            ids = [entry.id for entry in read_roster(self._client, job, self._settings).entries]
        except JobNotFound:
            return 0
        outcomes = [
            Outcome(index, ids[index], "cancelled", code=CODE, detail=DETAIL)
            for index, _ in sorted(documents)
        ]
        settled = run(self._client, Ledger(self._settings).settle(job, outcomes))
        logger.warning("job %s: %d documents are cancelled: %s", job, settled, DETAIL)
        return settled

    def _now(self) -> float:
        seconds, microseconds = self._client.time()
        return float(seconds) + float(microseconds) / 1e6


def _uncarried(documents: Documents, spans: Iterable[Span]) -> Documents:
    """What is left of the documents without those that the messages carry."""
    carried: Mapping[str, list[tuple[int, int]]] = defaultdict(list)
    for job, start, count in spans:
        if job in documents:
            carried[job].append((start, start + count))
    left = {
        job: {
            (index, size)
            for index, size in opened
            if not any(start <= index < stop for start, stop in carried[job])
        }
        for job, opened in documents.items()
    }
    return {job: opened for job, opened in left.items() if opened}


def _read_page(reply: Any) -> tuple[int, list[Span]]:
    cursor, *flat = map(text, reply)
    thirds = zip(flat[::3], flat[1::3], flat[2::3], strict=True)
    return int(cursor), [(job, int(start), int(count)) for job, start, count in thirds]
