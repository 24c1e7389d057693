"""`POST /v1/embeddings`, in the shapes that OpenAI's clients expect.

Used inside `webapp` only. The reference is https://platform.openai.com/docs/api-reference/embeddings.
"""

import base64
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal

import orjson
from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from tasks import errors
from tasks.messages import ModelCard
from tasks.queries import Answer, Question, Role, cut_query, decode_vectors
from tasks.settings import Settings
from webapp.bodies import parse_object, read_body
from webapp.failures import STATUSES, public_detail, retry_headers
from webapp.limits import charged
from webapp.request import INLINE_BYTES
from webapp.routes import PlainRoute
from webapp.schemas import EmbeddingsOut, OpenAIError
from webapp.state import Resources, resources_of

router = APIRouter()

MAX_INPUTS = 2048
"""As OpenAI's."""
INLINE_TEXTS = 16
"""Larger answers are made in a thread, so that they do not hold up other requests."""
BODY_REF = "#/components/schemas/EmbeddingsIn"

_FIELDS = frozenset({"input", "model", "encoding_format", "dimensions", "user", "input_type"})
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": BODY_REF}}},
    }
}
_TOKENS = (
    "input must be a string or a list of strings: token ids of another tokenizer mean nothing to "
    "this model. In LangChain set check_embedding_ctx_length=False"
)


class _Refusal(errors.InvalidRequest):
    """With the parameter that is to blame."""

    def __init__(self, detail: str, param: str, code: str = "invalid_value") -> None:
        super().__init__(detail, code=code)
        self.param = param


@dataclass(frozen=True, slots=True)
class _Wish:
    """What a request asks for."""

    texts: Sequence[str]
    model: str
    role: Role
    encoding: Literal["float", "base64"]
    dimensions: int | None


async def embeddings(request: Request) -> Response:
    """Vectors of texts, at once: they overtake documents that wait, and are stored nowhere."""
    use = await resources_of(request)
    try:
        return await _embed(request, use)
    except errors.EmbedError as error:
        return _error(error)


async def _embed(request: Request, use: Resources) -> Response:
    body = await read_body(request, use.settings.max_request_bytes)
    wish, questions = (
        _read(body, use) if len(body) <= INLINE_BYTES else await run_in_threadpool(_read, body, use)
    )
    card = await use.asker.read_card()
    _check_model(wish, card)
    async with charged(request, use, len(wish.texts)):
        answers = await use.asker.ask(request, questions)
    if len(wish.texts) <= INLINE_TEXTS:
        return _answer(wish, card, answers)
    return await run_in_threadpool(_answer, wish, card, answers)


def _read(body: bytes, use: Resources) -> tuple[_Wish, list[Question]]:
    wish = _parse(body, use.settings)
    return wish, cut_query(wish.texts, use.asker.box, role=wish.role)


def _parse(body: bytes, settings: Settings) -> _Wish:
    fields = parse_object(body, _FIELDS, "input and model")
    model = fields.get("model")
    if not isinstance(model, str):
        raise _Refusal("you must provide a model parameter", "model", "model_missing")
    encoding = fields.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise _Refusal("encoding_format is float or base64", "encoding_format")
    role = fields.get("input_type") or "query"
    if role not in ("query", "document"):
        raise _Refusal("input_type is query or document", "input_type")
    dimensions = fields.get("dimensions")
    if dimensions is not None and (not isinstance(dimensions, int) or dimensions is True):
        raise _Refusal("dimensions is a number", "dimensions")
    texts = _texts(fields.get("input"), settings)
    return _Wish(texts, model, role, encoding, dimensions)


def _texts(value: object, settings: Settings) -> list[str]:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list) or not items:
        raise _Refusal("input is a string or a list of strings, and not empty", "input")
    if len(items) > MAX_INPUTS:
        raise _Refusal(f"input has {len(items)} strings; {MAX_INPUTS} are the most", "input")
    texts: list[str] = []
    for index, item in enumerate(items):
        if isinstance(item, int | list):
            raise _Refusal(_TOKENS, "input", "tokens_not_supported")
        if not isinstance(item, str) or not item:
            raise _Refusal(f"input[{index}] must be a string that is not empty", "input")
        if len(item.encode()) > settings.max_text_bytes:
            raise _Refusal(
                f"input[{index}] is larger than {settings.max_text_bytes} bytes", "input"
            )
        texts.append(item)
    return texts


def _check_model(wish: _Wish, card: ModelCard) -> None:
    if wish.model != card.name:
        raise errors.ModelNotFound(
            f"The model {wish.model[:128]!r} does not exist here; the workers run {card.name!r}"
        )
    if wish.dimensions not in (None, card.dimension):
        raise _Refusal(
            f"this model's vectors have {card.dimension} dimensions and no others", "dimensions"
        )


def _answer(wish: _Wish, card: ModelCard, answers: Sequence[Answer]) -> Response:
    vectors = decode_vectors(answers, len(wish.texts))
    tokens = sum(answer.tokens for answer in answers)
    body = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": _encode(vector, wish.encoding)}
            for index, vector in enumerate(vectors)
        ],
        "model": card.name,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return Response(orjson.dumps(body), media_type="application/json")


def _encode(vector: bytes, encoding: str) -> str | list[float]:
    if encoding == "base64":
        return base64.b64encode(vector).decode()
    return array("f", vector).tolist()


def _error(error: errors.EmbedError) -> Response:
    """In OpenAI's shape, whose clients try again after 429 and 5xx."""
    status, kind = _classify(error)
    body = {
        "message": public_detail(error),
        "type": kind,
        "param": getattr(error, "param", None),
        "code": error.code,
    }
    if isinstance(error, errors.TextTooLong):
        body |= {"param": "input", "code": "context_length_exceeded"}
    return Response(
        orjson.dumps({"error": body}),
        status,
        headers=retry_headers(error),
        media_type="application/json",
    )


def _classify(error: errors.EmbedError) -> tuple[int, str]:
    if isinstance(error, errors.InvalidRequest | errors.TextTooLong):
        return HTTPStatus.BAD_REQUEST, "invalid_request_error"
    status = STATUSES.get(type(error), HTTPStatus.INTERNAL_SERVER_ERROR)
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return status, "rate_limit_error"
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return status, "server_error"
    return status, "invalid_request_error"


def _describe() -> dict[int | str, dict[str, Any]]:
    return {
        status: {"model": OpenAIError, "description": HTTPStatus(status).phrase}
        for status in (400, 404, 413, 422, 429, 503)
    }


router.add_api_route(
    "/v1/embeddings",
    embeddings,
    methods=["POST"],
    response_model=EmbeddingsOut,
    openapi_extra=_BODY,
    responses=_describe(),
    route_class_override=PlainRoute,
)
