"""Asking queries: into the queue, and back with the answers or an error. Used inside `webapp` only.

A process has one list in Redis for the answers to all its questions, and one connection that reads
it while anybody waits. Nobody waits beyond `EMBED_QUERY_TIMEOUT_S`, or for a Redis that is away.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

import redis.asyncio
from fastapi import Request
from starlette.requests import ClientDisconnect

from tasks import app as celery_app
from tasks.broker import redis_errors
from tasks.errors import BrokerDown, EmbedError, NoAnswer, QueueFull, RequestTooLarge
from tasks.ledger import run_async
from tasks.messages import ModelCard
from tasks.presence import WORKERS, read_workers
from tasks.queries import Answer, Question, ask, leave, new_box, pack
from tasks.settings import Settings

T = TypeVar("T")

BLOCK_S = 1
"""Seconds of one wait for answers; the connection is given up after longer silence."""
SILENCE_S = 2.0
BURST = 64
"""Answers that are taken together."""
ASK_S = 1.8
"""A query is in the queue after this many seconds, or refused."""
RETRY_AFTER_S = 1
"""When to ask again while too many queries wait: one takes some milliseconds."""


@dataclass(slots=True)
class _Waiting:
    """The answers to one query's questions, by their parts, as they come in."""

    parts: int
    answers: dict[int, Answer] = field(default_factory=dict)
    complete: "asyncio.Future[None]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def take(self, answer: Answer) -> None:
        """An answer that is an error ends the wait."""
        self.answers[answer.part] = answer
        if answer.error is not None:
            self.fail(answer.error)
        elif len(self.answers) == self.parts and not self.complete.done():
            self.complete.set_result(None)

    def fail(self, error: EmbedError) -> None:
        if not self.complete.done():
            self.complete.set_exception(error)
            self.complete.exception()  # whoever waited may be gone

    def in_order(self) -> list[Answer]:
        return [self.answers[part] for part in range(self.parts)]


class Answers:
    """This process' list of answers, read while somebody waits for one."""

    def __init__(self, client: "redis.asyncio.Redis", url: str) -> None:
        """`client` has a socket timeout of `SILENCE_S`: it serves nothing else."""
        self.box = new_box()
        self._client, self._url = client, url
        self._waiting: dict[str, _Waiting] = {}
        self._reading: asyncio.Task[None] | None = None

    def expect(self, query_id: str, parts: int) -> _Waiting:
        """Begin to wait; `forget` ends it."""
        waiting = self._waiting[query_id] = _Waiting(parts)
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read())
        return waiting

    def forget(self, query_id: str) -> None:
        self._waiting.pop(query_id, None)

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            with suppress(asyncio.CancelledError):
                await self._reading
        await self._client.aclose(close_connection_pool=True)

    async def _read(self) -> None:
        while self._waiting:
            try:
                with redis_errors(self._url):
                    rows = await self._take()
            except BrokerDown as error:
                for waiting in self._waiting.values():
                    waiting.fail(BrokerDown(error.detail))
                return
            for row in rows:
                self._give(Answer.from_json(row))

    async def _take(self) -> Sequence[bytes | str]:
        """What is there already, together: each call costs Redis a write to disk; else the next."""
        rows = await self._client.lpop(self.box, BURST)
        if rows:
            return [rows] if isinstance(rows, bytes | str) else rows
        row = await self._client.blpop([self.box], timeout=BLOCK_S)
        return [row[1]] if row else []

    def _give(self, answer: Answer) -> None:
        waiting = self._waiting.get(answer.id)
        if waiting is not None:
            waiting.take(answer)


class Asker:
    """The one way of an event loop's queries to the workers."""

    def __init__(self, client: "redis.asyncio.Redis", answers: Answers, settings: Settings) -> None:
        self._client, self._answers, self._settings = client, answers, settings

    @property
    def box(self) -> str:
        """Where answers to questions of this process go."""
        return self._answers.box

    async def read_card(self) -> ModelCard:
        """What the workers' model is. Raises NoAnswer when none is there, BrokerDown."""
        with redis_errors(self._settings.broker_url):
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.hgetall(WORKERS)
                pipe.time()
                rows, (seconds, _) = await _in_time(pipe.execute())
        # one without a warm child is loading its model: the query waits for it
        cards = [one.card for one in read_workers(rows, float(seconds)) if one.card]
        if not cards:
            raise NoAnswer("no worker with a loaded model is there", code="no_worker")
        return cards[0]

    async def ask(self, request: Request, questions: Sequence[Question]) -> list[Answer]:
        """The answers, in the order of the questions, which are one query's.

        Raises QueueFull when too many wait, NoAnswer, BrokerDown, ClientDisconnect, and what a
        worker answers: TextTooLong, StoreDown and so on.
        """
        query_id = questions[0].place["id"]
        self._refuse_oversize(questions)
        messages = [pack(celery_app, question) for question in questions]
        waiting = self._answers.expect(query_id, len(questions))
        try:
            await self._enqueue(questions, messages)
            try:
                await self._wait(request, waiting)
            except (EmbedError, ClientDisconnect, asyncio.CancelledError):
                with suppress(BrokerDown):
                    await run_async(self._client, leave(query_id, messages, self._settings))
                raise
            return waiting.in_order()
        finally:
            self._answers.forget(query_id)

    def _refuse_oversize(self, questions: Sequence[Question]) -> None:
        weight = sum(question.place["weight"] for question in questions)
        if weight > self._settings.query_limit:
            raise RequestTooLarge(
                f"the request counts as {weight} texts, more than EMBED_QUERY_LIMIT "
                f"({self._settings.query_limit}): send several requests"
            )

    async def _enqueue(self, questions: Sequence[Question], messages: Sequence[bytes]) -> None:
        call = ask(questions, messages, self._settings)
        if not await _in_time(run_async(self._client, call)):
            raise QueueFull("too many queries wait for an answer", retry_after_s=RETRY_AFTER_S)

    async def _wait(self, request: Request, waiting: _Waiting) -> None:
        gone = asyncio.create_task(_until_gone(request.receive))
        try:
            done, _ = await asyncio.wait(
                (waiting.complete, gone),
                timeout=self._settings.query_timeout_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            gone.cancel()
        if waiting.complete in done:
            return waiting.complete.result()
        if gone in done:
            raise ClientDisconnect
        raise NoAnswer(f"no worker has answered within {self._settings.query_timeout_s:g} s")


async def _in_time(work: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(ASK_S):
            return await work
    except TimeoutError as error:
        raise BrokerDown(f"Redis did not answer within {ASK_S} s") from error


async def _until_gone(receive: Callable[[], Awaitable[object]]) -> None:
    """The body has been read: all that can come is that the client hangs up."""
    await receive()
