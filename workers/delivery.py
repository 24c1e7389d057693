"""Decides, when a worker starts, how messages are delivered to it; `workers` installs it.

Unless a setting says otherwise it is `workers.transport`. That depends on the inside of kombu, so
with a kombu that it was not written for a worker says so and runs with kombu's own transport.
"""

import logging
from importlib.metadata import version
from typing import Any

import redis
from celery import Celery, bootsteps
from celery.concurrency.prefork import TaskPool as PreforkPool
from kombu import transport as _transport

from tasks.broker import connect
from tasks.settings import Settings, get_settings
from workers.transport import Transport

logger = logging.getLogger(__name__)

_kombu: Any = _transport  # its stubs lack the cache

KOMBU = "5.7"
REDIS = (6, 2)
"""The first with BLMOVE."""
SCHEMES = ("redis", "rediss")
STOCK_TIMEOUT_S = 3600
"""Without renewal a lease has to outlast all that is held: kombu's default."""


class Delivery(bootsteps.Step):
    """Before the worker connects: chooses the transport."""

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        settings = get_settings()
        reason = _reason_against(settings)
        if reason is None:
            Transport.renews_in_thread = not issubclass(worker.pool_cls, PreforkPool)
            _use("workers.transport:Transport")
            return
        logger.warning("kombu's own fetch can lose messages of a killed worker; used as %s", reason)
        _use("kombu.transport.redis:Transport")
        _lengthen_leases(worker.app)


def install(app: Celery) -> None:
    """Make this app's workers choose; doing it again changes nothing."""
    app.steps["worker"].add(Delivery)


def _reason_against(settings: Settings) -> str | None:
    if not settings.atomic_fetch:
        return "EMBED_ATOMIC_FETCH is off"
    if not version("kombu").startswith(f"{KOMBU}."):
        return f"this kombu is {version('kombu')}, not {KOMBU}"
    server = _redis_version(settings)
    if server is not None and server < REDIS:
        return f"this Redis is {'.'.join(map(str, server))}, older than 6.2"
    return None


def _redis_version(settings: Settings) -> tuple[int, ...] | None:
    """None when it does not say: it may still be starting."""
    client = connect(settings)
    try:
        found = client.info("server")["redis_version"]
    except (redis.RedisError, OSError, KeyError):
        return None
    finally:
        client.close()
    return tuple(int(part) for part in str(found).split(".")[:2])


def _use(path: str) -> None:
    for scheme in SCHEMES:
        _kombu.TRANSPORT_ALIASES[scheme] = path
        _kombu._transport_cache.pop(scheme, None)


def _lengthen_leases(app: Celery) -> None:
    options = dict(app.conf.broker_transport_options)
    options["visibility_timeout"] = max(options.get("visibility_timeout", 0), STOCK_TIMEOUT_S)
    app.conf.broker_transport_options = options
