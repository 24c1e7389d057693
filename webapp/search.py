"""`POST /search`: the nearest chunks to a text. Used inside `webapp` only.

A worker encodes the text and asks the vector store, whose client is not loaded here.
"""

from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from tasks import errors
from tasks.documents import parse_options
from tasks.queries import Search, cut_query
from tasks.settings import Settings
from webapp.bodies import parse_object, read_body
from webapp.failures import describe
from webapp.limits import charged
from webapp.routes import PlainRoute
from webapp.schemas import MAX_HITS, SearchOut
from webapp.state import resources_of

router = APIRouter()

DEFAULT_HITS = 10
BODY_REF = "#/components/schemas/SearchIn"

_FIELDS = frozenset({"text", "collection", "limit", "filter"})
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": BODY_REF}}},
    }
}
_PAYLOAD = ("text", "document_id", "chunk", "chunks", "metadata")


@dataclass(frozen=True, slots=True)
class _Wish:
    """What a request asks for."""

    text: str
    search: Search


async def search(request: Request) -> Response:
    """The nearest chunks, the best first, at once: a search overtakes documents that wait."""
    use = await resources_of(request)
    wish = _parse(await read_body(request, use.settings.max_request_bytes), use.settings)
    card = await use.asker.read_card()
    questions = cut_query([wish.text], use.asker.box, search=wish.search)
    async with charged(request, use, 1):
        (answer,) = await use.asker.ask(request, questions)
    body = {
        "collection": wish.search.collection,
        "model": card.name,
        "hits": [_hit(hit) for hit in answer.hits or ()],
    }
    return Response(orjson.dumps(body), media_type="application/json")


def _parse(body: bytes, settings: Settings) -> _Wish:
    fields = parse_object(body, _FIELDS, "a text")
    text, limit, wanted = (fields.get(name) for name in ("text", "limit", "filter"))
    if not isinstance(text, str) or not text.strip():
        raise errors.InvalidRequest("the text must be a string with content", code="text_invalid")
    if len(text.encode()) > settings.max_text_bytes:
        raise errors.InvalidRequest(
            f"the text is larger than {settings.max_text_bytes} bytes", code="text_too_large"
        )
    if limit is None:
        limit = DEFAULT_HITS
    if not isinstance(limit, int) or limit is True or not 1 <= limit <= MAX_HITS:
        raise errors.InvalidRequest(f"limit is 1 to {MAX_HITS}", code="limit_invalid")
    if wanted is not None and not isinstance(wanted, dict):
        raise errors.InvalidRequest("filter is an object, a Qdrant filter", code="filter_invalid")
    collection = parse_options(fields.get("collection"), None, settings).collection
    return _Wish(text, Search(collection, limit, wanted))


def _hit(found: dict[str, Any]) -> dict[str, Any]:
    payload = found["payload"]
    return {
        "id": found["id"],
        "score": found["score"],
        **{name: payload.get(name) for name in _PAYLOAD},
    }


router.add_api_route(
    "/search",
    search,
    methods=["POST"],
    response_model=SearchOut,
    openapi_extra=_BODY,
    responses=describe(
        errors.InvalidJson,
        errors.InvalidRequest,
        errors.CollectionNotFound,
        errors.ModelMismatch,
        errors.RequestTooLarge,
        errors.QueueFull,
        errors.RateExceeded,
        errors.NoAnswer,
    ),
    route_class_override=PlainRoute,
)
