"""What lives as long as a web process: settings and connections. Used inside `webapp` only."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, TypedDict

import redis.asyncio
from fastapi import Depends, FastAPI, Request

from tasks import app as celery_app
from tasks import durability
from tasks.broker import connect_async, redis_errors
from tasks.errors import BrokerDown
from tasks.ledger import Ledger
from tasks.settings import Settings, get_settings

logger = logging.getLogger("uvicorn.error")
"""The one log of a web process that uvicorn shows by default."""


@dataclass(frozen=True, slots=True)
class Resources:
    """One per process, made when it starts serving."""

    settings: Settings
    redis: "redis.asyncio.Redis"
    ledger: Ledger


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
    try:
        yield State(resources=Resources(settings, client, Ledger(settings)))
    finally:
        await client.aclose(close_connection_pool=True)


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


def _resources(request: Request) -> Resources:
    resources: Resources = request.state.resources
    return resources


Use = Annotated[Resources, Depends(_resources)]
"""The parameter type of a route that needs the process' resources."""
