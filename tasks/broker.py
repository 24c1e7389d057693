"""Connections to the Redis that carries the queue and keeps the ledger; any package may import it.

Timeouts are short: an answer within two seconds or an error, never a hang.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
import redis.asyncio
import redis.asyncio.retry
import redis.exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from tasks.errors import BrokerDown
from tasks.settings import Settings
from tasks.urls import redact

TIMEOUT_S = 0.9
POOL_CONNECTIONS = 32
"""Connections of one event loop at most; further requests wait for one, up to the timeout."""


def connect(settings: Settings) -> redis.Redis:
    """A client that connects when it is first used; each process makes its own, after a fork."""
    client: redis.Redis = redis.Redis.from_url(
        settings.broker_url,
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    )
    return client


def connect_async(settings: Settings, *, timeout_s: float = TIMEOUT_S) -> "redis.asyncio.Redis":
    """The same for an event loop; one that blocks on purpose needs a longer timeout."""
    pool: redis.asyncio.BlockingConnectionPool = redis.asyncio.BlockingConnectionPool.from_url(
        settings.broker_url,
        max_connections=POOL_CONNECTIONS,
        timeout=TIMEOUT_S,
        socket_timeout=timeout_s,
        socket_connect_timeout=TIMEOUT_S,
        retry=redis.asyncio.retry.Retry(NoBackoff(), 0),
    )
    return redis.asyncio.Redis.from_pool(pool)


@contextmanager
def redis_errors(url: str) -> Iterator[None]:
    """Turn Redis' errors into BrokerDown."""
    try:
        yield
    except (redis.exceptions.RedisError, OSError) as error:
        raise refusal(url, error) from error


def refusal(url: str, reason: object) -> BrokerDown:
    """The error for a Redis that said no, or nothing."""
    return BrokerDown(f"Redis at {redact(url)} does not answer as it should: {reason}")


def text(value: Any) -> str:
    """A reply of Redis as text."""
    return value.decode() if isinstance(value, bytes) else str(value)
