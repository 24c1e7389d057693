"""Is it alive, is it working, and in which numbers. Used inside `webapp` only."""

from collections.abc import Iterator
from typing import Literal

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from tasks import errors
from tasks.settings import Settings
from tasks.snapshot import QueueSnapshot, read_queue_async
from webapp.failures import describe
from webapp.schemas import Alive, Readiness, Trouble
from webapp.state import Use

router = APIRouter()


@router.get("/livez")
async def livez() -> Alive:
    """This process answers; it says nothing about the rest."""
    return Alive()


@router.get("/readyz", responses={503: {"model": Readiness}, **describe(errors.InvalidRequest)})
async def readyz(
    response: Response, use: Use, scope: Literal["pipeline", "accept"] = "pipeline"
) -> Readiness:
    """Is the whole pipeline working? With `scope=accept`: can this process accept work?"""
    try:
        queue = await read_queue_async(use.redis, use.settings)
    except errors.BrokerDown:
        troubles = [Trouble(code="broker_down", detail="Redis does not answer")]
    else:
        troubles = [] if scope == "accept" else list(_troubles(queue, use.settings))
    response.status_code = 503 if troubles else 200
    return Readiness(ready=not troubles, troubles=troubles)


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}, **describe(errors.BrokerDown)},
)
async def metrics(use: Use) -> Response:
    """Prometheus' text format. All numbers are Redis', so any web process gives the same."""
    queue = await read_queue_async(use.redis, use.settings)
    registry = CollectorRegistry()
    registry.register(_QueueCollector(queue, ready=not list(_troubles(queue, use.settings))))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


def _troubles(queue: QueueSnapshot, settings: Settings) -> Iterator[Trouble]:
    if not any(worker.warm for worker in queue.workers):
        yield Trouble(code="no_worker", detail="no worker with a loaded model consumes the queue")
    if queue.outstanding and queue.idle_s > settings.stall_s:
        yield Trouble(
            code="stalled",
            detail=f"{queue.outstanding} texts are outstanding and none was settled for "
            f"{queue.idle_s:.0f} s",
        )
    for worker in queue.workers:
        if worker.busy_s > settings.stall_s:
            yield Trouble(
                code="stuck",
                detail=f"a child of worker {worker.name} has been at the same messages for "
                f"{worker.busy_s:.0f} s",
            )
        if worker.card and worker.card.name != settings.model_name:
            yield Trouble(
                code="model_mismatch",
                detail=f"worker {worker.name} runs {worker.card.name!r}, this process expects "
                f"{settings.model_name!r}: EMBED_MODEL must be the same everywhere",
            )


class _QueueCollector(Collector):
    """A queue snapshot as metrics."""

    def __init__(self, queue: QueueSnapshot, *, ready: bool) -> None:
        self._queue, self._ready = queue, ready

    def collect(self) -> Iterator[Metric]:
        queue = self._queue
        warm = sum(worker.warm for worker in queue.workers)
        busy_s = max((worker.busy_s for worker in queue.workers), default=0.0)
        for name, text, value in (
            ("ready", "1 when /readyz is green: the queue is consumed and moves.", self._ready),
            ("waiting_messages", "Messages in Redis' list.", queue.waiting),
            ("reserved_messages", "Messages that workers hold.", queue.reserved),
            ("outstanding_texts", "Texts accepted and not settled.", queue.outstanding),
            ("outstanding_bytes", "Their bytes.", queue.outstanding_bytes),
            ("outstanding_limit_texts", "EMBED_QUEUE_LIMIT.", queue.limit),
            ("outstanding_limit_bytes", "EMBED_QUEUE_BYTES.", queue.limit_bytes),
            ("oldest_age_seconds", "Age of the oldest open job.", queue.oldest_age_s),
            ("drain_rate_texts_per_second", "Texts settled a second.", queue.drain_rate_per_s),
            ("workers", "Workers that announce themselves.", len(queue.workers)),
            ("warm_children", "Pool children with a loaded model.", warm),
            ("busy_seconds", "How long the longest batch has run so far.", busy_s),
        ):
            yield GaugeMetricFamily(f"embedmill_{name}", text, value)
        for name, count in queue.totals.items():
            unit = "points" if name == "points" else "texts"
            shown = name if name == unit else f"{name}_{unit}"
            yield CounterMetricFamily(f"embedmill_{shown}", f"Since Redis began: {name}.", count)
