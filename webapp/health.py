"""Is it alive, is it working, and in which numbers. Used inside `webapp` only."""

from collections.abc import Iterator
from typing import Literal

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from tasks import errors
from tasks.settings import Settings
from tasks.snapshot import QueueSnapshot, read_queue_async
from tasks.statistics import read_statistics_async
from webapp.failures import describe
from webapp.metrics import QueueCollector, StatisticsCollector
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
    registry.register(QueueCollector(queue, ready=not list(_troubles(queue, use.settings))))
    registry.register(StatisticsCollector(await read_statistics_async(use.redis, use.settings)))
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
