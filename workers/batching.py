"""Adaptive batching: a batch the moment a pool child is idle. Lives in a worker's main process.

A Celery task Strategy on Celery's own slot semaphore. A lone message leaves at once; while all
children are busy messages gather; a freed child takes what waits, up to a budget. Several messages
share a pass of the model, and each keeps Celery's ordinary life: events, results, revocation,
expiry, links and chords. `workers.batch` is the child's half.

Only for prefork on an event loop. Other pools have no slots to wait for: there each message is a
batch of its own, by Celery's default strategy. So are messages with a rate limit or time limits of
their own, which Celery counts by message.
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from billiard.pool import RUN
from celery.concurrency.prefork import TaskPool as PreforkPool
from celery.worker.state import task_ready, task_reserved
from celery.worker.strategy import default

from tasks.gpus import list_gpus
from tasks.settings import get_settings
from workers.batch import trace_batch
from workers.request import EmbedRequest

logger = logging.getLogger(__name__)

BYTES_PER_TOKEN = 4
"""Of English text in JSON; the budget is an estimate, the planner counts."""
CPU_HANDOVER, GPU_HANDOVER = (64, 8192), (1024, 131_072)
"""Documents and tokens. A second's work for a CPU core; several full model calls for a GPU."""


def strategy(task: Any, app: Any, consumer: Any, **options: Any) -> Any:
    """What the embed task names as its Strategy; Celery calls it again after each reconnect, so all
    state lives in the Batcher that is made here."""
    on_event_loop = getattr(consumer.controller, "semaphore", None) is not None
    if not (on_event_loop and isinstance(consumer.pool, PreforkPool)):
        return default(task, app, consumer, **options)
    batcher = Batcher(task, consumer)
    return default(task, app, _Redirected(consumer, batcher.add), **options)


class _Redirected:
    """The consumer, as Celery's default strategy sees it, with another way to hand requests on."""

    def __init__(self, consumer: Any, hand_on: Callable[[EmbedRequest], None]) -> None:
        self._consumer = consumer
        self.on_task_request = hand_on

    def apply_eta_task(self, request: EmbedRequest) -> None:
        """Called by the timer when a countdown or ETA has passed."""
        task_reserved(request)
        self.on_task_request(request)
        self._consumer.qos.decrement_eventually()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)


class Batcher:
    """Requests that wait for a slot. Single-threaded: everything happens in the event loop."""

    def __init__(self, task: Any, consumer: Any) -> None:
        settings = get_settings()
        self._task = task
        self._consumer = consumer
        self._pool = consumer.pool
        self._semaphore = consumer.controller.semaphore
        documents, tokens = GPU_HANDOVER if list_gpus(settings) else CPU_HANDOVER
        self._budget_documents = settings.handover_documents or documents
        self._budget_bytes = (settings.handover_tokens or tokens) * BYTES_PER_TOKEN
        self._waiting: deque[EmbedRequest] = deque()
        self._asked = False

    def add(self, request: EmbedRequest) -> None:
        """Take a request in, and hand it over now if a child is idle."""
        if any(request.time_limits):
            self._consumer.on_task_request(request)
            return
        self._waiting.append(request)
        self._ask()

    def _ask(self) -> None:
        if not self._asked and self._waiting:
            self._asked = True
            # runs at once when a slot is free, else when one becomes free
            self._semaphore.acquire(self._granted)

    def _granted(self) -> None:
        # the job that freed the slot leaves the pool's books only after this call
        self._consumer.hub.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        self._asked = False
        pool = self._pool._pool
        if pool is None or pool._state != RUN:
            return  # shutting down: what waits goes back to the queue with its channel
        if len(pool._cache) >= self._pool.num_processes:
            # Celery's lax semaphore gave a slot that is none: a child was replaced
            self._ask()
            return
        batch = self._take()
        if batch:
            self._apply(batch)
        else:
            self._semaphore.release()
        self._ask()

    def _take(self) -> list[EmbedRequest]:
        batch: list[EmbedRequest] = []
        documents = size = 0
        while self._waiting:
            request = self._waiting[0]
            documents += request.documents
            size += request.size
            if batch and (documents > self._budget_documents or size > self._budget_bytes):
                break
            self._waiting.popleft()
            if not request.revoked():
                batch.append(request)
        return batch

    def _apply(self, batch: Sequence[EmbedRequest]) -> None:
        result = self._pool.apply_async(
            trace_batch,
            args=(self._task.name, [request.item() for request in batch]),
            accept_callback=_Accepted(batch),
            callback=_Done(batch),
            error_callback=_Lost(batch),
            **self._limits(len(batch)),
            correlation_id=batch[0].id,
        )
        for request in batch:
            request.runs_as(result)

    def _limits(self, members: int) -> dict[str, float]:
        """The worker's time limits are for a message; a batch has as many times as long."""
        pool = self._pool._pool
        soft = self._task.soft_time_limit or pool.soft_timeout or 0
        hard = self._task.time_limit or pool.timeout or 0
        return {"soft_timeout": soft * members, "timeout": hard * members}


class _Members:
    """What to tell each member of a batch."""

    def __init__(self, batch: Sequence[EmbedRequest]) -> None:
        self.batch = batch

    def _tell(self, request: EmbedRequest, news: Callable[[], Any]) -> None:
        # the pool swallows what its callbacks raise: one member's trouble must not leave the
        # others unacknowledged
        try:
            news()
        except Exception:
            logger.exception("task %s could not be finished; it will come back", request.id)


class _Accepted(_Members):
    """A child has begun."""

    def __call__(self, pid: Any, time_accepted: float) -> None:
        for request in self.batch:
            self._tell(request, partial(request.on_accepted, pid, time_accepted))


class _Done(_Members):
    """A child has finished: each member is acknowledged, rejected or failed by its own result."""

    def __call__(self, results: Sequence[Any], **_: Any) -> None:
        for request, result in zip(self.batch, results, strict=True):
            self._tell(request, partial(request.on_success, result))


class _Lost(_Members):
    """The child is gone. No member is to blame yet: all come back, and the ledger knows that they
    had begun, so their documents run one by one."""

    def __call__(self, info: Any, **_: Any) -> None:
        for request in self.batch:
            # one that was revoked took the child with it; it is settled and acknowledged
            if not request._already_revoked:
                self._tell(request, partial(self._give_back, request, info.exception))

    @staticmethod
    def _give_back(request: EmbedRequest, error: Exception) -> None:
        logger.warning("task %s comes back: %s", request.id, error)
        task_ready(request)
        request.reject(requeue=True)
