"""Documents that are to go, by their ids. Used inside `webapp` only.

A deletion is accepted as a text is: it has a number, waits in the queue, and its job tells how far
it is.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from starlette.concurrency import run_in_threadpool

from tasks import app as celery_app
from tasks import errors
from tasks.documents import MAX_ID_CHARACTERS, parse_ids, parse_options, refuse_oversize
from tasks.errors import InvalidRequest
from tasks.ledger import Submission
from tasks.settings import Settings
from tasks.submission import build_submission, new_job_id, slice_deletion
from webapp.bodies import parse_object, read_body
from webapp.failures import describe
from webapp.limits import charged
from webapp.request import INLINE_BYTES
from webapp.schemas import Accepted
from webapp.state import Resources, Use

router = APIRouter()

_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/DeleteIn"}}},
    }
}
_FAILURES = (
    errors.InvalidDocument,
    errors.RequestTooLarge,
    errors.QueueFull,
    errors.RateExceeded,
    errors.BrokerDown,
)


@router.delete(
    "/collections/{collection}/documents/{document_id:path}",
    status_code=202,
    responses=describe(*_FAILURES),
)
async def delete_document(
    collection: str,
    document_id: Annotated[
        str,
        Path(
            min_length=1,
            max_length=MAX_ID_CHARACTERS,
            description="Percent-encoded in UTF-8; a slash may stand as it is.",
        ),
    ],
    request: Request,
    use: Use,
    response: Response,
) -> Accepted:
    """Delete a document: all its chunks, and what was accepted before and is still on its way."""
    submission = _pack([document_id], collection, use.settings)
    return await _accept(submission, request, use, response)


@router.post(
    "/collections/{collection}/documents/delete",
    status_code=202,
    openapi_extra=_BODY,
    responses=describe(errors.InvalidJson, *_FAILURES),
)
async def delete_documents(
    collection: str, request: Request, use: Use, response: Response
) -> Accepted:
    """Delete documents: all or none is accepted."""
    body = await read_body(request, use.settings.max_request_bytes)
    if len(body) <= INLINE_BYTES:
        submission = _read(body, collection, use.settings)
    else:
        submission = await run_in_threadpool(_read, body, collection, use.settings)
    return await _accept(submission, request, use, response)


async def _accept(
    submission: Submission, request: Request, use: Resources, response: Response
) -> Accepted:
    async with charged(request, use, len(submission.ids)):
        await use.intake.accept(submission)
    response.headers["Location"] = f"/jobs/{submission.job_id}"
    return Accepted(
        job_id=submission.job_id, document_ids=submission.ids, accepted=len(submission.ids)
    )


def _read(body: bytes, collection: str, settings: Settings) -> Submission:
    ids = parse_object(body, frozenset({"ids"}), "ids").get("ids")
    if not isinstance(ids, list):
        raise InvalidRequest("ids is a list", code="ids_invalid")
    refuse_oversize([0] * len(ids), settings)
    return _pack(ids, collection, settings)


def _pack(ids: Sequence[object], collection: str, settings: Settings) -> Submission:
    options = replace(parse_options(collection, None, settings), delete=True)
    slices = slice_deletion(new_job_id(), parse_ids(ids))
    refuse_oversize([size for part in slices for size in part.sizes], settings)
    return build_submission(celery_app, slices, options)
