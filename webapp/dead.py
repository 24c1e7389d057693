"""Dead letters over HTTP: listed, shown, replayed and purged. Used inside `webapp` only."""

import re
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import ValidationError

from tasks import app as celery_app
from tasks import errors
from tasks.ledger import run_async
from tasks.letters import (
    PAGE_BYTES,
    PAGE_LETTERS,
    DeadLetter,
    discard_letter,
    discard_letters,
    find_letter,
    purge_letters,
    read_page,
)
from tasks.replay import pack_letters
from webapp.bodies import read_body
from webapp.failures import describe, public_detail
from webapp.schemas import (
    Cursor,
    LetterList,
    LetterOut,
    LetterRow,
    Purged,
    RefusedLetter,
    Replayed,
    ReplayedJob,
    ReplayIn,
)
from webapp.state import Resources, Use

router = APIRouter()

EXCERPT_CHARACTERS = 200
REPLAY_BODY_BYTES = 64 * 1024
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_REPLAY_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ReplayIn"}}},
    }
}


@router.get("/dead", responses=describe(errors.InvalidRequest, errors.BrokerDown))
async def list_letters(
    use: Use,
    limit: Annotated[int, Query(ge=1, le=PAGE_LETTERS)] = 50,
    cursor: Cursor | None = None,
    code: str | None = None,
) -> LetterList:
    """Documents that failed, newest first, a page at a time; with `code`, those that say it."""
    page = await run_async(use.redis, read_page(use.settings, cursor, limit))
    rows = [_row(letter) for letter in _of_code(page.letters, code)]
    return LetterList(letters=rows, total=page.total, cursor=page.cursor)


@router.get("/dead/{letter_id}", responses=describe(errors.LetterNotFound, errors.BrokerDown))
async def show_letter(letter_id: str, use: Use) -> LetterOut:
    """One of them whole, with its text."""
    letter = await run_async(use.redis, find_letter(use.settings, letter_id))
    return LetterOut(
        **_row(letter).model_dump(),
        text=letter.text,
        metadata=letter.metadata,
        on_long=letter.on_long,
        sequence=letter.sequence,
    )


@router.post(
    "/dead/replay",
    status_code=202,
    openapi_extra=_REPLAY_BODY,
    responses=describe(
        errors.InvalidJson,
        errors.InvalidRequest,
        errors.RequestTooLarge,
        errors.QueueFull,
        errors.BrokerDown,
    ),
)
async def replay(request: Request, use: Use) -> Replayed:
    """Accept failed documents anew. Each letter goes in the step that accepts its document; what
    cannot be accepted stays, and the answer says why. 429 when the queue has room for none."""
    wanted = await _read_replay(request)
    desk = _ReplayDesk(use)
    if wanted.ids:
        async for letters in desk.collect(wanted.ids):
            await desk.accept(letters)
        return desk.answer(cursor=None)
    limit = min(PAGE_LETTERS, use.settings.queue_limit)
    page = await run_async(use.redis, read_page(use.settings, wanted.cursor, limit))
    await desk.accept(_of_code(page.letters, wanted.code or None))
    return desk.answer(page.cursor)


@router.delete("/dead/{letter_id}", responses=describe(errors.LetterNotFound, errors.BrokerDown))
async def purge_letter(letter_id: str, use: Use) -> Purged:
    """Remove one, with its text."""
    return Purged(purged=await run_async(use.redis, discard_letter(use.settings, letter_id)))


@router.delete("/dead", responses=describe(errors.BrokerDown))
async def purge(use: Use, code: str | None = None) -> Purged:
    """Remove all; with `code`, those that say it."""
    if code is None:
        return Purged(purged=await run_async(use.redis, purge_letters(use.settings)))
    page = await run_async(use.redis, read_page(use.settings))
    purged = await _discard(use, _of_code(page.letters, code))
    while page.cursor:
        page = await run_async(use.redis, read_page(use.settings, page.cursor))
        purged += await _discard(use, _of_code(page.letters, code))
    return Purged(purged=purged)


class _ReplayDesk:
    """Replays letters batch after batch, and remembers what became of them."""

    def __init__(self, use: Resources) -> None:
        self._use = use
        self._jobs: list[ReplayedJob] = []
        self._refused: dict[str, errors.EmbedError] = {}

    async def collect(self, ids: Sequence[str]) -> AsyncIterator[list[DeadLetter]]:
        """The letters with these ids, in batches as bounded as a page; refuses those not found."""
        limit, most_bytes = self._use.settings.queue_limit, self._use.settings.queue_bytes
        batch: list[DeadLetter] = []
        size = 0
        for letter_id in dict.fromkeys(ids):
            try:
                letter = await run_async(
                    self._use.redis, find_letter(self._use.settings, letter_id)
                )
            except errors.LetterNotFound as error:
                self._refused[letter_id] = error
                continue
            if batch and (len(batch) == limit or size + letter.size > min(PAGE_BYTES, most_bytes)):
                yield batch
                batch, size = [], 0
            batch.append(letter)
            size += letter.size
        yield batch

    async def accept(self, letters: Sequence[DeadLetter]) -> None:
        """Each job of these letters wholly or not at all."""
        packed = pack_letters(celery_app, letters, self._use.settings)
        self._refused |= packed.refused
        if not packed.submissions:
            return
        answers: list[int | errors.EmbedError]
        try:
            call = self._use.ledger.accept_all(packed.submissions)
            answers = await run_async(self._use.redis, call)
        except errors.BrokerDown as error:
            answers = [error] * len(packed.submissions)
        for submission, answer in zip(packed.submissions, answers, strict=True):
            if isinstance(answer, errors.EmbedError):
                self._refused |= dict.fromkeys(submission.letters, answer)
            else:
                self._jobs.append(
                    ReplayedJob(
                        job_id=submission.job_id,
                        collection=submission.collection,
                        accepted=len(submission.ids),
                    )
                )

    def answer(self, cursor: str | None) -> Replayed:
        """Raises QueueFull or BrokerDown where that kept all from being accepted."""
        if not self._jobs:
            for error in self._refused.values():
                if error.retryable:
                    raise error
        return Replayed(
            replayed=sum(job.accepted for job in self._jobs),
            jobs=self._jobs,
            refused=[
                RefusedLetter(id=letter_id, code=error.code, detail=public_detail(error))
                for letter_id, error in self._refused.items()
            ],
            cursor=cursor,
        )


async def _read_replay(request: Request) -> ReplayIn:
    body = await read_body(request, REPLAY_BODY_BYTES)
    try:
        return ReplayIn.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["type"] == "json_invalid":
            raise errors.InvalidJson(f"the body is not JSON in UTF-8: {first['msg']}") from error
        where = ".".join(map(str, first["loc"])) or "the body"
        raise errors.InvalidRequest(f"{where}: {first['msg']}") from error


async def _discard(use: Resources, letters: Sequence[DeadLetter]) -> int:
    return await run_async(use.redis, discard_letters(use.settings, letters))


def _of_code(letters: Sequence[DeadLetter], code: str | None) -> list[DeadLetter]:
    return [letter for letter in letters if code is None or letter.code == code]


def _row(letter: DeadLetter) -> LetterRow:
    fields: dict[str, Any] = {
        name: getattr(letter, name) for name in LetterRow.model_fields if name != "excerpt"
    }
    return LetterRow(**fields, excerpt=_excerpt(letter.text))


def _excerpt(text: str) -> str:
    """On one line, and without commands to a terminal."""
    shown = " ".join(_CONTROLS.sub(" ", text[:EXCERPT_CHARACTERS]).split())
    return f"{shown}…" if len(text) > EXCERPT_CHARACTERS else shown
