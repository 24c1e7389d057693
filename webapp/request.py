"""From a request's body to a submission. Used inside `webapp` only."""

import re
from dataclasses import dataclass, replace

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from tasks import app as celery_app
from tasks.documents import parse_documents, parse_options, refuse_oversize
from tasks.errors import InvalidDocument, InvalidRequest
from tasks.ledger import Submission
from tasks.marks import Mark
from tasks.messages import Document, Options
from tasks.settings import Settings
from tasks.submission import build_submission, new_job_id, slice_job
from webapp.bodies import parse_object, read_body
from webapp.idempotency import mark_body, read_key

INLINE_BYTES = 64 * 1024
"""Larger bodies are parsed in a thread, so that they do not hold up other requests."""

_FORMS = ("text", "texts", "documents")
_ONE_TEXT = ("text", "id", "metadata")
_PARAMETERS = frozenset({"collection", "on_long", "from_line"})
_LINE_NUMBER = re.compile(r"[1-9][0-9]{0,14}")
MAX_LINE = 10**15 - 1
_FIELDS = frozenset({*_FORMS, *_ONE_TEXT, "collection", "on_long"})


@dataclass(frozen=True, slots=True)
class Order:
    """What a request asks to have accepted."""

    submission: Submission
    document_ids: list[str]


@dataclass(frozen=True, slots=True)
class Parameters:
    """What stands in a request's query: options where its body has none, and for an upload the
    number of the body's first line."""

    options: Options
    from_line: int


def read_parameters(request: Request, settings: Settings) -> Parameters:
    """Raises InvalidRequest."""
    query = request.query_params
    unknown = sorted(query.keys() - _PARAMETERS)
    if unknown:
        raise InvalidRequest(f"unknown parameter {unknown[0][:64]!r}", code="parameter_unknown")
    options = parse_options(query.get("collection"), query.get("on_long"), settings)
    line = query.get("from_line", "1")
    if not _LINE_NUMBER.fullmatch(line):
        raise InvalidRequest("from_line is the number of a line, from 1", code="from_line_invalid")
    return Parameters(options, int(line))


async def read_order(request: Request, settings: Settings) -> Order:
    """Read, check and pack a request. Raises RequestError."""
    key, defaults = read_key(request), read_parameters(request, settings).options
    body = await read_body(request, settings.max_request_bytes)
    job_id = new_job_id()
    mark = None
    if key is not None:
        mark = mark_body(key, request.scope["query_string"], body, job_id, settings.job_ttl_s)
    if len(body) <= INLINE_BYTES:
        return _order(body, defaults, job_id, mark, settings)
    return await run_in_threadpool(_order, body, defaults, job_id, mark, settings)


def _order(
    body: bytes, defaults: Options, job_id: str, mark: Mark | None, settings: Settings
) -> Order:
    documents, options = _parse(body, defaults, settings)
    slices = slice_job(job_id, documents)
    refuse_oversize([size for part in slices for size in part.sizes], settings)
    submission = build_submission(celery_app, slices, options)
    if mark is not None:
        submission = replace(submission, mark=mark)
    return Order(submission, [document.id for document in documents])


def _parse(body: bytes, defaults: Options, settings: Settings) -> tuple[list[Document], Options]:
    fields = parse_object(body, _FIELDS, "text, texts or documents")
    collection, on_long = fields.get("collection"), fields.get("on_long")
    options = parse_options(
        defaults.collection if collection is None else collection,
        defaults.on_long if on_long is None else on_long,
        settings,
    )
    raw = _documents(fields)
    refuse_oversize([0] * len(raw), settings)
    return parse_documents(raw, settings), options


def _documents(fields: dict[str, object]) -> list[object]:
    forms = [name for name in _FORMS if name in fields]
    if len(forms) != 1:
        raise InvalidRequest("give exactly one of text, texts and documents", code="form_invalid")
    if forms == ["text"]:
        return [{name: fields[name] for name in _ONE_TEXT if name in fields}]
    if "id" in fields or "metadata" in fields:
        raise InvalidRequest("id and metadata go with text, not with a list", code="form_invalid")
    items = fields[forms[0]]
    if not isinstance(items, list):
        raise InvalidRequest(f"{forms[0]} is a list", code="form_invalid")
    kind = str if forms == ["texts"] else dict
    for index, item in enumerate(items):
        if not isinstance(item, kind):
            what = "a string" if kind is str else "an object with a text"
            raise InvalidDocument(f"each of {forms[0]} is {what}", index=index)
    return items
