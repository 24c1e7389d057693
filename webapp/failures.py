"""From errors to answers: one table, one shape. Used inside `webapp` only."""

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.routing import Route

from tasks import errors
from webapp.schemas import Problem, Uploaded

logger = logging.getLogger("uvicorn.error")

RETRY_AFTER_S = 2

STATUSES: dict[type[errors.EmbedError], HTTPStatus] = {
    errors.InvalidJson: HTTPStatus.BAD_REQUEST,
    errors.InvalidRequest: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.InvalidDocument: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.RequestTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.KeyReused: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.QueueFull: HTTPStatus.TOO_MANY_REQUESTS,
    errors.RateExceeded: HTTPStatus.TOO_MANY_REQUESTS,
    errors.TooManyStreams: HTTPStatus.TOO_MANY_REQUESTS,
    errors.TooManyUploads: HTTPStatus.TOO_MANY_REQUESTS,
    errors.UploadMoved: HTTPStatus.CONFLICT,
    errors.UploadSilent: HTTPStatus.REQUEST_TIMEOUT,
    errors.ShuttingDown: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.BrokerDown: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.JobNotFound: HTTPStatus.NOT_FOUND,
    errors.LetterNotFound: HTTPStatus.NOT_FOUND,
    errors.ModelMismatch: HTTPStatus.CONFLICT,
    errors.NoAnswer: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.CollectionNotFound: HTTPStatus.NOT_FOUND,
    errors.ModelNotFound: HTTPStatus.NOT_FOUND,
    errors.TextTooLong: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.ModelError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.EncoderBroken: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.StoreDown: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.StoreRejected: HTTPStatus.UNPROCESSABLE_ENTITY,
}


class ProblemResponse(JSONResponse):
    """`application/problem+json`."""

    media_type = "application/problem+json"

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        index: int | None = None,
        line: int | None = None,
        upload: Uploaded | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        problem = Problem(
            title=HTTPStatus(status).phrase,
            status=status,
            detail=detail,
            code=code,
            index=index,
            line=line,
            upload=upload,
        )
        super().__init__(problem.model_dump(exclude_none=True), status, headers)


def describe(*kinds: type[errors.EmbedError]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may raise these, for its documentation."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        int(STATUSES[kind]): {
            "description": STATUSES[kind].phrase,
            "content": content,
        }
        for kind in kinds
    }


def handle_errors(app: FastAPI) -> None:
    """Answer every error as a problem; nothing of our insides in it."""
    app.add_exception_handler(errors.EmbedError, _ours)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(RequestValidationError, _parameters)
    app.add_exception_handler(Exception, _unexpected)


async def _ours(_: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, errors.EmbedError)
    status = STATUSES.get(type(error), HTTPStatus.INTERNAL_SERVER_ERROR)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error("%s", error)
    return ProblemResponse(
        status,
        error.code,
        public_detail(error),
        index=getattr(error, "index", None),
        headers=retry_headers(error),
    )


def public_detail(error: errors.EmbedError) -> str:
    """What clients may know: no address of a server behind us."""
    if isinstance(error, errors.BrokerDown):
        return "the queue cannot be reached: nothing was accepted, try again"
    if isinstance(error, errors.StoreDown):
        return "the vector store does not answer: try again"
    return error.detail


def retry_headers(error: errors.EmbedError) -> dict[str, str]:
    """When to try again, where that may help."""
    if isinstance(error, errors.ComeBackLater):
        return {"Retry-After": str(error.retry_after_s)}
    return {"Retry-After": str(RETRY_AFTER_S)} if error.retryable else {}


async def _http(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, HTTPException)
    code = HTTPStatus(error.status_code).name.lower()
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_allowed_methods(request))
    return ProblemResponse(error.status_code, code, str(error.detail), headers=headers)


def _allowed_methods(request: Request) -> list[str]:
    """Of all routes with the path: the framework names those of the first. A path without
    parameters is not also what it would be to a route with them."""
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    found = [
        route
        for route in request.app.routes
        if isinstance(route, Route) and route.path_regex.match(path)
    ]
    fewest = min(len(route.param_convertors) for route in found)
    same = [route for route in found if len(route.param_convertors) == fewest]
    return sorted({method for route in same for method in route.methods or ()})


async def _gone(_: Request, __: Exception) -> ProblemResponse:
    """Nobody reads it: the client hung up while it sent its body. Of that nothing was accepted, but
    for whole batches of an upload."""
    return ProblemResponse(400, errors.InvalidJson.default_code, "the body ended too early")


async def _parameters(_: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    detail = f"{where}: {first['msg']}"
    return ProblemResponse(422, errors.InvalidRequest.default_code, detail)


async def _unexpected(_: Request, __: Exception) -> ProblemResponse:
    return ProblemResponse(500, "internal_error", "something went wrong here; it was logged")
