"""What lives as long as a web process: settings and connections. Used inside `webapp` only."""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from threading import current_thread, main_thread
from types import FrameType
from typing import Annotated, TypedDict

import redis.asyncio
from fastapi import Depends, FastAPI, Request

from tasks import app as celery_app
from tasks import durability
from tasks.broker import connect_async, redis_errors
from tasks.errors import BrokerDown
from tasks.ledger import Ledger, run_async
from tasks.settings import Settings, get_settings
from tasks.snapshot import read_jobs_async, read_queue_async
from webapp.asking import SILENCE_S, Answers, Asker
from webapp.events import JobStreams
from webapp.intake import Intake
from webapp.places import UploadPlaces

logger = logging.getLogger("uvicorn.error")
"""The one log of a web process that uvicorn shows by default."""


@dataclass(frozen=True, slots=True)
class Resources:
    """One per process, made when it starts serving."""

    settings: Settings
    redis: "redis.asyncio.Redis"
    ledger: Ledger
    intake: Intake
    asker: Asker
    streams: JobStreams
    uploads: UploadPlaces

    def end_long_requests(self) -> None:
        """The server waits for all requests before it ends."""
        self.streams.close()
        self.uploads.close()


class State(TypedDict):
    """The type of Starlette's lifespan state."""

    resources: Resources


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[State]:
    """Open what a process needs; closes it when the process drains."""
    settings = get_settings()
    celery_app.amqp.queues  # noqa: B018  # Celery reads its configuration now, not in a request
    client = connect_async(settings)
    await _warn_of_redis(client, settings)
    logging_queue = asyncio.create_task(_log_queue(client, settings))
    answers = Answers(connect_async(settings, timeout_s=SILENCE_S), settings.broker_url)
    resources = _resources(settings, client, answers)
    try:
        with on_end(resources.end_long_requests):
            yield State(resources=resources)
    finally:
        logging_queue.cancel()
        await answers.close()
        await client.aclose(close_connection_pool=True)


def _resources(settings: Settings, client: "redis.asyncio.Redis", answers: Answers) -> Resources:
    ledger = Ledger(settings)
    intake = Intake(lambda submissions: run_async(client, ledger.accept_all(submissions)))
    streams = JobStreams(lambda job_ids: read_jobs_async(client, job_ids, settings))
    asker = Asker(client, answers, settings)
    uploads = UploadPlaces(settings.max_uploads)
    return Resources(settings, client, ledger, intake, asker, streams, uploads)


@contextmanager
def on_end(act: Callable[[], None]) -> Iterator[None]:
    """Act on the loop when this process is told to end: the server first waits for all requests,
    and only then for the lifespan. Its own handling of signals goes on."""
    if current_thread() is not main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(act)
        theirs = before[signal.Signals(number)]
        if callable(theirs):
            theirs(number, frame)

    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        act()
        for number, theirs in before.items():
            signal.signal(number, theirs)


async def _warn_of_redis(client: "redis.asyncio.Redis", settings: Settings) -> None:
    try:
        with redis_errors(settings.broker_url):
            reply = await client.config_get(*durability.NAMES)
    except BrokerDown as error:
        logger.warning("%s", error)
        return
    for remark in durability.examine(reply, settings):
        if remark.advice:
            logger.warning("Redis: %s; %s", remark.detail, remark.advice)


async def _log_queue(client: "redis.asyncio.Redis", settings: Settings) -> None:
    """A line now and then, if that is wished."""
    while settings.log_queue_s is not None:
        await asyncio.sleep(settings.log_queue_s)
        try:
            logger.info("pid %d: %s", os.getpid(), await read_queue_async(client, settings))
        except BrokerDown as error:
            logger.warning("pid %d: %s", os.getpid(), error)


async def resources_of(request: Request) -> Resources:
    """The process' resources; a coroutine, because FastAPI sends plain functions to a thread."""
    resources: Resources = request.scope["state"]["resources"]
    return resources


Use = Annotated[Resources, Depends(resources_of)]
"""The parameter type of a route that needs the process' resources."""
