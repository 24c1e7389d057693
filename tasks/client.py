"""Submitting and deleting documents from Python programs, and following their job. Any package may
import it.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tasks.admission import ledger, redis_client
from tasks.celery import app
from tasks.documents import parse_documents, parse_ids, parse_options, refuse_oversize
from tasks.errors import QueueFull
from tasks.ledger import run, sweep_pages
from tasks.messages import QUEUE, Options
from tasks.progress import Meter
from tasks.settings import get_settings
from tasks.snapshot import JobSnapshot, read_job, read_queue
from tasks.submission import Slice, build_submission, new_job_id, slice_deletion, slice_job

POLL_S = 0.2
ROOM_POLL_S = 2.0
"""Seconds between two tries at most while waiting for room."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job that was accepted: its documents will be done, failed or cancelled."""

    id: str
    document_ids: tuple[str, ...]

    def progress(self) -> JobSnapshot:
        """How far it is. Raises JobNotFound, BrokerDown."""
        return read_job(redis_client(), self.id, get_settings())

    def wait(
        self,
        timeout_s: float | None = None,
        *,
        progress: bool = False,
        on_progress: Callable[[JobSnapshot], None] | None = None,
    ) -> JobSnapshot:
        """The job when it is settled. Raises TimeoutError, JobNotFound, BrokerDown.

        `progress` shows on standard error how far it is; `on_progress` is called with it.
        """
        meter = Meter(sys.stderr) if progress else None
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            job = self.progress()
            if meter:
                meter.show(job)
            if on_progress:
                on_progress(job)
            if job.state != "open":
                return job
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"job {self.id} is not settled after {timeout_s} s")
            time.sleep(POLL_S)

    def cancel(self) -> int:
        """Cancel what has not started; how many documents that was."""
        cancelled = run(redis_client(), ledger().cancel(self.id))
        for page in sweep_pages(read_queue(redis_client(), get_settings()).waiting):
            run(redis_client(), ledger().sweep(self.id, QUEUE, page))
        return max(cancelled, 0)


def submit(
    documents: object,
    *,
    collection: str | None = None,
    on_long: str | None = None,
    wait_for_room: bool = False,
) -> Job:
    """Accept a text, a document `{text, id?, metadata?}` or a list of them as one job.

    `wait_for_room` waits while the queue is full instead of raising QueueFull.
    Raises InvalidDocument, InvalidRequest, RequestTooLarge, QueueFull, ModelMismatch, BrokerDown.
    """
    settings = get_settings()
    parsed = parse_documents(documents, settings)
    options = parse_options(collection, on_long, settings)
    return _accept(slice_job(new_job_id(), parsed), options, wait_for_room=wait_for_room)


def delete(ids: object, *, collection: str | None = None, wait_for_room: bool = False) -> Job:
    """Accept that documents, by an id or a list of ids, are to be deleted, as one job.

    Of what is accepted for the same id, the last wins: texts that were accepted before go whenever
    they arrive, and those that are accepted later stay.
    Raises InvalidDocument, InvalidRequest, RequestTooLarge, QueueFull, BrokerDown.
    """
    options = replace(parse_options(collection, None, get_settings()), delete=True)
    slices = slice_deletion(new_job_id(), parse_ids(ids))
    return _accept(slices, options, wait_for_room=wait_for_room)


def _accept(slices: Sequence[Slice], options: Options, *, wait_for_room: bool) -> Job:
    refuse_oversize([size for part in slices for size in part.sizes], get_settings())
    submission = build_submission(app, slices, options)
    call = ledger().accept(submission)
    while True:
        try:
            run(redis_client(), call)
            return Job(submission.job_id, tuple(submission.ids))
        except QueueFull as full:
            if not wait_for_room:
                raise
            time.sleep(min(full.retry_after_s, ROOM_POLL_S))
