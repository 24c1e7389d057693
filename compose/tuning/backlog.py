"""A backlog of the user's texts in the private queue: the same for all who work it off.

Only `compose.tuning` imports it.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress

import httpx
import redis

from compose.tuning.sizes import LEAST_TURNS
from tasks.broker import redis_errors
from tasks.celery import app
from tasks.ledger import TOTALS, Ledger, run, sweep_pages
from tasks.messages import QUEUE, Document, Options
from tasks.settings import MIB, Settings
from tasks.snapshot import read_queue
from tasks.submission import Slice, build_submission, new_job_id, slice_job

JOB_DOCUMENTS = 1024
JOB_BYTES = 8 * MIB
"""Accepted by one call of Redis' script, which must not take long."""
TIMEOUT_S = 10.0


class Backlog:
    """One round's jobs, in a collection of their own: texts that were stored before could be
    cheaper to store again."""

    def __init__(
        self, client: redis.Redis, settings: Settings, texts: Sequence[str], collection: str
    ) -> None:
        self._client, self._settings = client, settings
        self._ledger = Ledger(settings)
        self._texts = texts
        self._options = Options(collection)
        self._jobs: list[str] = []
        self._sent = 0

    def send(self, count: int, *, message_texts: int) -> None:
        """Enqueue so many texts, from the sample's beginning on, again and again.

        `message_texts` 1: a message each, as from requests of one text; else as many as one holds.
        Raises BrokerDown, QueueFull.
        """
        for documents in self._batches(count):
            slices = slice_job(new_job_id(), documents)
            if message_texts == 1:
                slices = [single for part in slices for single in _singles(part)]
            submission = build_submission(app, slices, self._options)
            run(self._client, self._ledger.accept(submission))
            self._jobs.append(submission.job_id)

    def drop(self) -> None:
        """Cancel what has not started. Raises BrokerDown."""
        for job in self._jobs:
            run(self._client, self._ledger.cancel(job))
            for page in sweep_pages(read_queue(self._client, self._settings).waiting):
                run(self._client, self._ledger.sweep(job, QUEUE, page))
        self._jobs.clear()

    def forget(self) -> None:
        """Delete the collection; a Qdrant that does not do it keeps a little more than it must."""
        url = f"{self._settings.qdrant_url}/collections/{self._options.collection}"
        with suppress(httpx.HTTPError):
            httpx.delete(url, timeout=TIMEOUT_S)

    def _batches(self, count: int) -> Iterator[list[Document]]:
        batch, size = list[Document](), 0
        for document in self._documents(count):
            more = len(document.text.encode())
            if batch and (len(batch) == JOB_DOCUMENTS or size + more > JOB_BYTES):
                yield batch
                batch, size = [], 0
            batch.append(document)
            size += more
        if batch:
            yield batch

    def _documents(self, count: int) -> Iterator[Document]:
        """A text that comes again is another one: workers embed the same text of a pass once."""
        for _ in range(count):
            turn, place = divmod(self._sent, len(self._texts))
            text = self._texts[place]
            yield Document(str(self._sent), f"{text} {turn}" if turn else text)
            self._sent += 1


def count_settled(client: redis.Redis, settings: Settings) -> int:
    """Texts that were done or have failed since Redis began. Raises BrokerDown."""
    with redis_errors(settings.broker_url):
        done, failed = client.hmget(TOTALS, "done", "failed")
    return int(done or 0) + int(failed or 0)


def plan_window(unit: int, rate_per_s: float, seconds: float) -> int:
    """Texts to measure over: whole turns of all children, which hold `unit` texts together, about
    so many seconds, two turns at least. Children in step settle all at once: parts of a turn would
    measure the steps."""
    return unit * max(LEAST_TURNS, math.ceil(seconds * rate_per_s / unit))


def _singles(part: Slice) -> Iterator[Slice]:
    job, start = part.place["job"], part.place["start"]
    for offset, (row, encoded) in enumerate(zip(part.documents, part.encoded, strict=True)):
        yield Slice(
            task_id=f"{job}.{start + offset}",
            place={**part.place, "start": start + offset, "count": 1},
            documents=[row],
            encoded=[encoded],
        )
