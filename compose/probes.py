"""How to see that a service is ready: probes, as `compose.service.Probe` describes them.

Only `compose` imports it.
"""

import urllib.error
import urllib.request
from collections.abc import Callable

import redis

from compose.service import Probe
from tasks.presence import WorkerPresence, workers
from tasks.urls import redact

TIMEOUT_S = 3.0

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def answers_ping(url: str) -> Probe:
    """Redis has loaded its data and answers."""

    def probe(_pid: int) -> str:
        with redis.Redis.from_url(url, socket_timeout=TIMEOUT_S) as client:
            try:
                client.ping()
            except redis.RedisError as error:
                return str(error)
        return ""

    return probe


def answers_get(url: str) -> Probe:
    """GET `url` is answered with a 2xx status."""

    def probe(_pid: int) -> str:
        try:
            with _opener.open(url, timeout=TIMEOUT_S):
                return ""
        except (OSError, ValueError) as error:
            return f"{redact(url)}: {error}"

    return probe


def has_warm_child(redis_url: str) -> Probe:
    """The worker of that pid has announced itself, with a child that has loaded the model."""
    return _has_warm(redis_url, lambda worker: worker.warm > 0, "no child has loaded the model")


def has_warm_children(redis_url: str) -> Probe:
    """The same, with all its children."""
    return _has_warm(
        redis_url,
        lambda worker: worker.warm == worker.concurrency,
        "not all children have loaded the model",
    )


def _has_warm(redis_url: str, enough: Callable[[WorkerPresence], bool], missing: str) -> Probe:
    def probe(pid: int) -> str:
        with redis.Redis.from_url(redis_url, socket_timeout=TIMEOUT_S) as client:
            try:
                found = any(enough(worker) for worker in workers(client) if worker.pid == pid)
            except redis.RedisError as error:
                return str(error)
        return "" if found else missing

    return probe
