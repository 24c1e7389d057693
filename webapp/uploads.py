"""`POST /embed` with lines of JSON: streamed, accepted batch by batch. Used inside `webapp` only.

An upload that finds the queue full, or its API key's rate used up, waits and does not read on: the
client is slowed by its connection. What was accepted stays so, whatever becomes of the rest.
"""

import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from http import HTTPStatus

import orjson
from fastapi import Request, Response
from starlette.concurrency import run_in_threadpool

from tasks import app as celery_app
from tasks.broker import redis_errors, text
from tasks.drain import IDLE_RETRY_AFTER_S
from tasks.errors import (
    BrokerDown,
    EmbedError,
    QueueFull,
    RateExceeded,
    RequestRepeated,
    RequestTooLarge,
    ShuttingDown,
    UploadMoved,
    UploadSilent,
)
from tasks.ledger import OUTSTANDING, Submission
from tasks.messages import Options
from tasks.submission import build_submission, new_job_id, slice_job
from webapp.failures import STATUSES, ProblemResponse, public_detail, retry_headers
from webapp.idempotency import Progress, begin_upload, mark_progress, read_key
from webapp.limits import charged, most_bytes_of_key, texts_per_minute
from webapp.lines import BATCH_DOCUMENTS, Batch, LineReader
from webapp.request import read_parameters
from webapp.schemas import Uploaded
from webapp.state import Resources

logger = logging.getLogger("uvicorn.error")

MEDIA_TYPES = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl"})
LISTED_JOBS = 1000
"""Ids of jobs in an answer: of the last ones, which are the last to settle."""
ROOM_POLL_S = 0.2


def is_upload(request: Request) -> bool:
    """Whether the body is lines of JSON."""
    given = request.headers.get("Content-Type", "")
    return given.partition(";")[0].strip().lower() in MEDIA_TYPES


async def upload(request: Request, use: Resources) -> Response:
    """Accept the body's lines. The answer, good or bad, says how far it came.

    Raises what keeps it from beginning: InvalidRequest, KeyReused, TooManyUploads, BrokerDown.
    """
    parameters = read_parameters(request, use.settings)
    key = read_key(request)
    with use.uploads.take():
        found = await _read_mark(key, use)
        begun = begin_upload(found, parameters.options, parameters.from_line)
        most = min(BATCH_DOCUMENTS, texts_per_minute(request) or BATCH_DOCUMENTS)
        reader = LineReader(use.settings, begun, parameters.from_line, most)
        one = Upload(
            request, use, parameters.options, reader=reader, begun=begun, marks=Marks(key, found)
        )
        try:
            await one.run()
        except EmbedError as error:
            return _problem(error, one)
    return Response(orjson.dumps(one.receipt.model_dump()), 202, media_type="application/json")


class Marks:
    """What the upload's key has to find, and leaves, with each batch."""

    def __init__(self, key: str | None, found: str) -> None:
        self._key, self._found = key, found

    def add(self, submission: Submission, progress: Progress, ttl_s: int) -> Submission:
        """The submission, accepted only where nobody else has gone on."""
        if self._key is None:
            return submission
        mark = mark_progress(self._key, self._found, progress, ttl_s)
        self._found = mark.after
        return replace(submission, mark=mark)


class Upload:
    """One request's lines on their way into the queue."""

    def __init__(
        self,
        request: Request,
        use: Resources,
        options: Options,
        *,
        reader: LineReader,
        begun: Progress,
        marks: Marks,
    ) -> None:
        self._request = request
        self._use, self._options, self._reader, self._marks = use, options, reader, marks
        self._begun = self._progress = begun
        self._jobs = 0
        self._read_bytes = 0
        self._job_ids: deque[str] = deque(maxlen=LISTED_JOBS)

    @property
    def receipt(self) -> Uploaded:
        """What was accepted so far, and where to go on."""
        return Uploaded(
            accepted=self._progress.documents - self._begun.documents,
            accepted_before=self._begun.documents,
            next_line=self._progress.next_line,
            jobs=self._jobs,
            job_ids=list(self._job_ids),
        )

    @property
    def failed_line(self) -> int | None:
        return self._reader.failure.line if self._reader.failure else None

    async def run(self) -> None:
        """Until the body ends. Raises what ends it earlier: RequestError for the line that is
        wrong, when all before it is accepted; QueueFull when nothing drains; ModelMismatch,
        RequestTooLarge, UploadMoved, UploadSilent, ShuttingDown, BrokerDown, ClientDisconnect."""
        most_bytes = most_bytes_of_key(self._request)
        chunks = self._request.stream()
        while chunk := await self._receive(chunks):
            self._read_bytes += len(chunk)
            if most_bytes is not None and self._read_bytes > most_bytes:
                raise RequestTooLarge(f"this API key may send {most_bytes} bytes in one request")
            await self._accept(await run_in_threadpool(self._reader.read, chunk))
        await self._accept(await run_in_threadpool(self._reader.finish))

    async def _receive(self, chunks: AsyncGenerator[bytes]) -> bytes:
        """The next part of the body; empty at its end."""
        async with self._use.uploads.receiving():
            return await anext(chunks, b"")

    async def _accept(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            submission = await run_in_threadpool(self._pack, batch)
            try:
                await self._deliver(submission)
            except RequestRepeated as error:
                raise UploadMoved(
                    "another upload with this Idempotency-Key has gone on: send it again"
                ) from error
            self._progress = batch.progress
            self._jobs += 1
            self._job_ids.append(submission.job_id)
        if self._reader.failure:
            raise self._reader.failure.error

    def _pack(self, batch: Batch) -> Submission:
        slices = slice_job(new_job_id(), batch.documents)
        submission = build_submission(celery_app, slices, self._options)
        return self._marks.add(submission, batch.progress, self._use.settings.job_ttl_s)

    async def _deliver(self, submission: Submission) -> None:
        """As soon as there is room. Raises QueueFull when the queue has not moved for long."""
        settings = self._use.settings
        texts, size = len(submission.sizes), sum(submission.sizes)
        if size > settings.queue_bytes:
            raise RequestTooLarge(f"{size} bytes, the whole queue holds {settings.queue_bytes}")
        seen, since_s = (-1, -1), 0.0
        while True:
            held = await self._outstanding()
            if held != seen:
                seen, since_s = held, time.monotonic()
            if held[0] + texts <= settings.queue_limit and held[1] + size <= settings.queue_bytes:
                if await self._accepts(submission):
                    return
                since_s = time.monotonic()  # somebody else was quicker: the queue moves
            if time.monotonic() - since_s > settings.stall_s:
                raise QueueFull(
                    f"the queue is full, and has not moved for {settings.stall_s} s",
                    retry_after_s=IDLE_RETRY_AFTER_S,
                )
            await self._use.uploads.pause(ROOM_POLL_S)

    async def _accepts(self, submission: Submission) -> bool:
        """Whether there is room still, when the API key's rate allows it."""
        while True:
            try:
                async with charged(self._request, self._use, len(submission.sizes)):
                    await self._use.intake.accept(submission)
            except QueueFull:
                return False
            except RateExceeded as error:
                await self._use.uploads.pause(error.retry_after_s)
            else:
                return True

    async def _outstanding(self) -> tuple[int, int]:
        with redis_errors(self._use.settings.broker_url):
            texts, size = await self._use.redis.hmget(OUTSTANDING, ["texts", "bytes"])
        return int(texts or 0), int(size or 0)


async def _read_mark(key: str | None, use: Resources) -> str:
    if key is None:
        return ""
    with redis_errors(use.settings.broker_url):
        return text(await use.redis.get(key) or "")


def _problem(error: EmbedError, one: Upload) -> ProblemResponse:
    """The error as an answer that says how far the upload came."""
    status = STATUSES.get(type(error), HTTPStatus.INTERNAL_SERVER_ERROR)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error("%s", error)
    line, receipt = one.failed_line, one.receipt
    detail = public_detail(error)
    if line is not None:
        detail = f"line {line}: {detail}"
    elif isinstance(error, BrokerDown):
        detail = f"the queue cannot be reached: go on at line {receipt.next_line}"
    elif isinstance(error, UploadSilent | ShuttingDown):
        detail = f"{detail}: go on at line {receipt.next_line}"
    return ProblemResponse(
        status, error.code, detail, line=line, upload=receipt, headers=retry_headers(error)
    )
