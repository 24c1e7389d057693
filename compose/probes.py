"""How to see that a service is ready: probes, as `compose.service.Probe` describes them.

Only `compose` imports it.
"""

import urllib.error
import urllib.request

import redis

from compose.service import Probe
from tasks.presence import workers
from tasks.settings import redact

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

    def probe(pid: int) -> str:
        with redis.Redis.from_url(redis_url, socket_timeout=TIMEOUT_S) as client:
            try:
                warm = [worker.warm for worker in workers(client) if worker.pid == pid]
            except redis.RedisError as error:
                return str(error)
        return "" if any(warm) else "no child has loaded the model"

    return probe
