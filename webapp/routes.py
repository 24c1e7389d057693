"""Documents in, jobs and the queue out. Used inside `webapp` only."""

from collections.abc import Callable, Coroutine
from dataclasses import asdict
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute

from tasks import errors
from tasks.documents import COLLECTION_PATTERN
from tasks.ledger import run_async, sweep_pages
from tasks.messages import QUEUE, OnLong
from tasks.presence import WorkerPresence
from tasks.snapshot import JobSnapshot, read_job_async, read_queue_async
from webapp.events import SETTLED, EventStream
from webapp.failures import describe
from webapp.idempotency import HEADER, MAX_CHARACTERS, repeated_job
from webapp.limits import charged
from webapp.request import MAX_LINE, Order, read_order
from webapp.schemas import Accepted, JobOut, QueueOut, Uploaded, WorkerOut
from webapp.state import Resources, Use, resources_of
from webapp.uploads import is_upload, upload

router = APIRouter()

EMBED_BODY_REF = "#/components/schemas/EmbedIn"
_EMBED_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": EMBED_BODY_REF}},
            "application/x-ndjson": {
                "schema": {"type": "string"},
                "example": '{"text": "one", "id": "1"}\n{"text": "two"}\n',
            },
        },
    },
    "parameters": [
        {
            "name": "collection",
            "in": "query",
            "description": "Where the body names none.",
            "schema": {"type": "string", "pattern": COLLECTION_PATTERN},
        },
        {
            "name": "on_long",
            "in": "query",
            "description": "Where the body names none.",
            "schema": {"type": "string", "enum": list(OnLong)},
        },
        {
            "name": "from_line",
            "in": "query",
            "description": "The number of the first line of an upload's body.",
            "schema": {"type": "integer", "minimum": 1, "maximum": MAX_LINE, "default": 1},
        },
        {
            "name": HEADER,
            "in": "header",
            "schema": {"type": "string", "minLength": 1, "maxLength": MAX_CHARACTERS},
        },
    ],
}


_EVENT = {
    "type": "object",
    "description": "Of each event; the last one's id is `settled`.",
    "required": ["data"],
    "properties": {
        "id": {"const": SETTLED},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"$ref": "#/components/schemas/JobOut"},
        },
    },
}
_JOB_ID = {"name": "job_id", "in": "path", "required": True, "schema": {"type": "string"}}


class PlainRoute(APIRoute):
    """Documented like any other, but its endpoint reads the request and makes the answer itself:
    FastAPI's own handling takes as long as all the rest of accepting a text."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return handler


async def embed(request: Request) -> Response:
    """Accept documents: all or none. 202 means that they are in the queue, on disk.

    The same body with the same `Idempotency-Key` is accepted once, and gets the same answer again.
    Lines of JSON are accepted as they come in, and the answer says how many.
    """
    use = await resources_of(request)
    if is_upload(request):
        return await upload(request, use)
    order = await read_order(request, use.settings)
    job_id, repeated = await _accept(request, order, use)
    accepted = {
        "job_id": job_id,
        "document_ids": order.document_ids,
        "accepted": len(order.document_ids),
    }
    headers = {"Location": f"/jobs/{job_id}"}
    return Response(
        orjson.dumps(accepted),
        status_code=202,
        headers=headers | {"Idempotent-Replayed": "true"} if repeated else headers,
        media_type="application/json",
    )


async def _accept(request: Request, order: Order, use: Resources) -> tuple[str, bool]:
    """The job's id, and whether an earlier request made it."""
    submission = order.submission
    try:
        async with charged(request, use, len(order.document_ids)):
            await use.intake.accept(submission)
    except errors.RequestRepeated as error:
        assert submission.mark is not None
        return repeated_job(submission.mark, error), True
    return submission.job_id, False


router.add_api_route(
    "/embed",
    embed,
    methods=["POST"],
    status_code=202,
    response_model=Accepted | Uploaded,
    openapi_extra=_EMBED_BODY,
    responses=describe(
        errors.InvalidJson,
        errors.InvalidDocument,
        errors.RequestTooLarge,
        errors.ModelMismatch,
        errors.KeyReused,
        errors.UploadMoved,
        errors.UploadSilent,
        errors.QueueFull,
        errors.RateExceeded,
        errors.BrokerDown,
    ),
    route_class_override=PlainRoute,
)


@router.get("/jobs/{job_id}", responses=describe(errors.JobNotFound, errors.BrokerDown))
async def show_job(job_id: str, use: Use) -> JobOut:
    """What became of a job's documents."""
    return _job(await read_job_async(use.redis, job_id, use.settings))


async def follow_job(request: Request) -> Response:
    """The job as server-sent events: now, whenever something has come of it, and at last when it is
    settled; then the stream ends."""
    use = await resources_of(request)
    if request.headers.get("last-event-id") == SETTLED:
        return Response(status_code=204)
    return EventStream(use.streams, request.path_params["job_id"])


router.add_api_route(
    "/jobs/{job_id}/events",
    follow_job,
    methods=["GET"],
    response_class=Response,
    openapi_extra={"parameters": [_JOB_ID]},
    responses={
        200: {"content": {"text/event-stream": {"schema": _EVENT}}},
        204: {"description": "Last-Event-ID is the last event's: there is no more"},
        **describe(errors.JobNotFound, errors.TooManyStreams, errors.BrokerDown),
    },
    route_class_override=PlainRoute,
)


@router.delete("/jobs/{job_id}", responses=describe(errors.JobNotFound, errors.BrokerDown))
async def cancel_job(job_id: str, use: Use) -> JobOut:
    """Cancel what has not started; its room in the queue is free at once."""
    if await run_async(use.redis, use.ledger.cancel(job_id)) > 0:
        await _sweep(job_id, use)
    return await show_job(job_id, use)


@router.get("/queue", responses=describe(errors.BrokerDown))
async def show_queue(use: Use) -> QueueOut:
    """How much is in the queue, how fast it drains, and who drains it."""
    queue = await read_queue_async(use.redis, use.settings)
    return QueueOut(
        waiting=queue.waiting,
        reserved=queue.reserved,
        outstanding=queue.outstanding,
        limit=queue.limit,
        outstanding_bytes=queue.outstanding_bytes,
        limit_bytes=queue.limit_bytes,
        oldest_age_s=queue.oldest_age_s,
        drain_rate_per_s=queue.drain_rate_per_s,
        workers=[_worker(worker) for worker in queue.workers],
    )


async def _sweep(job_id: str, use: Resources) -> None:
    queue = await read_queue_async(use.redis, use.settings)
    for page in sweep_pages(queue.waiting):
        await run_async(use.redis, use.ledger.sweep(job_id, QUEUE, page))


def _job(job: JobSnapshot) -> JobOut:
    return JobOut.model_validate(asdict(job))


def _worker(worker: WorkerPresence) -> WorkerOut:
    model = worker.card.name if worker.card else None
    return WorkerOut(
        name=worker.name, concurrency=worker.concurrency, warm=worker.warm, model=model
    )
