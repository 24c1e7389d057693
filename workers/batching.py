"""Adaptive batching: a batch the moment a pool child is idle. Lives in a worker's main process.

A Celery task Strategy on Celery's own slot semaphore. A lone message leaves at once; while all
children are busy messages gather; a freed child takes what waits, up to a budget: queries first,
and then documents. Several messages of one kind share a pass of the model, and each keeps Celery's
ordinary life: events, results, revocation, expiry, links and chords. `workers.batch` and
`workers.queries` are the child's half. While no child is idle queries stay in Redis, and children
take them in the middle of their passes (`workers.lane`).

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
from celery.worker.state import task_reserved
from celery.worker.strategy import default

from tasks.gpus import list_gpus
from tasks.messages import QUERY_TASK_NAME, TASK_NAME
from tasks.settings import get_settings
from workers.batch import trace_batch
from workers.newer import hold_newer
from workers.queries import trace_queries
from workers.request import BatchedRequest
from workers.transport import Channel

logger = logging.getLogger(__name__)

BYTES_PER_TOKEN = 4
"""Of English text in JSON; the budget is an estimate, the planner counts."""
CPU_HANDOVER, GPU_HANDOVER = (64, 8192), (1024, 131_072)
"""Documents and tokens. A second's work for a CPU core; several full model calls for a GPU."""


TRACERS = {QUERY_TASK_NAME: trace_queries, TASK_NAME: trace_batch}
"""What a child does with a batch of a task's messages, in the order in which they are served."""


def strategy(task: Any, app: Any, consumer: Any, **options: Any) -> Any:
    """What our tasks name as their Strategy; Celery calls it again after each reconnect, so all
    state lives in the Batcher that they share until then."""
    on_event_loop = getattr(consumer.controller, "semaphore", None) is not None
    if on_event_loop and isinstance(consumer.pool, PreforkPool):
        consumer = _Redirected(consumer, _share_batcher(consumer).add)
    return hold_newer(default(task, app, consumer, **options))


_shared: "Batcher | None" = None


def _share_batcher(consumer: Any) -> "Batcher":
    global _shared  # noqa: PLW0603  # both tasks' strategies find it here
    if _shared is None or not _shared.serves(consumer):
        _shared = Batcher(consumer)
    return _shared


class _Redirected:
    """The consumer, as Celery's default strategy sees it, with another way to hand requests on."""

    def __init__(self, consumer: Any, hand_on: Callable[[BatchedRequest], None]) -> None:
        self._consumer = consumer
        self.on_task_request = hand_on

    def apply_eta_task(self, request: BatchedRequest) -> None:
        """Called by the timer when a countdown or ETA has passed."""
        task_reserved(request)
        self.on_task_request(request)
        self._consumer.qos.decrement_eventually()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)


class Batcher:
    """Requests that wait for a slot. Single-threaded: everything happens in the event loop."""

    def __init__(self, consumer: Any) -> None:
        settings = get_settings()
        self._consumer, self._connection = consumer, consumer.connection
        self._pool = consumer.pool
        self._semaphore = consumer.controller.semaphore
        documents, tokens = GPU_HANDOVER if list_gpus(settings) else CPU_HANDOVER
        self._budget_documents = settings.handover_documents or documents
        self._budget_bytes = (settings.handover_tokens or tokens) * BYTES_PER_TOKEN
        self._waiting: dict[str, deque[BatchedRequest]] = {name: deque() for name in TRACERS}
        self._asked = False
        Channel.takes_queries = self.has_idle_child

    def has_idle_child(self) -> bool:
        """Whether what comes now is handed over at once."""
        return bool(self._semaphore.value > 0)

    def serves(self, consumer: Any) -> bool:
        """Whether it was made for this connection of this consumer."""
        return consumer is self._consumer and consumer.connection is self._connection

    def add(self, request: BatchedRequest) -> None:
        """Take a request in, and hand it over now if a child is idle."""
        if any(request.time_limits):
            self._consumer.on_task_request(request)
            return
        self._waiting[request.name].append(request)
        self._ask()

    def _ask(self) -> None:
        if not self._asked and any(self._waiting.values()):
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
        for waiting in self._waiting.values():
            batch = self._take(waiting)
            if batch:
                self._apply(batch)
                break
        else:
            self._semaphore.release()
        self._ask()

    def _take(self, waiting: deque[BatchedRequest]) -> list[BatchedRequest]:
        batch: list[BatchedRequest] = []
        documents = size = 0
        while waiting:
            request = waiting[0]
            documents += request.documents
            size += request.size
            if batch and (documents > self._budget_documents or size > self._budget_bytes):
                break
            waiting.popleft()
            if not request.revoked():
                batch.append(request)
        return batch

    def _apply(self, batch: Sequence[BatchedRequest]) -> None:
        name = batch[0].name
        result = self._pool.apply_async(
            TRACERS[name],
            args=(name, [request.item() for request in batch]),
            accept_callback=_Accepted(batch),
            callback=_Done(batch),
            error_callback=_Lost(batch),
            **self._limits(batch),
            correlation_id=batch[0].id,
        )
        for request in batch:
            request.runs_as(result)

    def _limits(self, batch: Sequence[BatchedRequest]) -> dict[str, float]:
        """The worker's time limits are for a message; a batch has as many times as long."""
        pool, task, members = self._pool._pool, batch[0].task, len(batch)
        soft = task.soft_time_limit or pool.soft_timeout or 0
        hard = task.time_limit or pool.timeout or 0
        return {"soft_timeout": soft * members, "timeout": hard * members}


class _Members:
    """What to tell each member of a batch."""

    def __init__(self, batch: Sequence[BatchedRequest]) -> None:
        self.batch = batch

    def _tell(self, request: BatchedRequest, news: Callable[[], Any]) -> None:
        # the pool swallows what its callbacks raise: one member's trouble must not leave the
        # others unacknowledged
        try:
            news()
        except Exception:
            said = "task %s could not be finished; it will come back"
            logger.exception(said, request.id, extra=request.log_ids)


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
    """The child is gone, and says nothing of its members."""

    def __call__(self, info: Any, **_: Any) -> None:
        for request in self.batch:
            # one that was revoked took the child with it; it is settled and acknowledged
            if not request._already_revoked:
                self._tell(request, partial(request.lose, info.exception))
