"""What a worker checks before it starts children: settings, weights, store. No torch, no CUDA.

`workers.startup` runs it in the main process. Each failure is one sentence that says
what to change.
"""

import logging
import time
from dataclasses import dataclass
from typing import Any

import httpx
import redis

from tasks import durability
from tasks.broker import connect
from tasks.errors import BrokerDown, ModelMismatch, SettingsError, StoreDown
from tasks.settings import Settings
from tasks.urls import redact
from workers.converted import find_converted
from workers.provenance import Provenance, describe_mismatch, read_provenance
from workers.qdrant import read_address
from workers.weights import find_weights, read_dimension

logger = logging.getLogger(__name__)

PATIENCE_S = 15.0
"""Servers that start together with the workers are up by then."""
PAUSE_S = 0.5
REQUEST_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Collections:
    """The collections of a store: those with plain vectors, by name."""

    made_by: dict[str, Provenance]


def check_pool(settings: Settings, *, forks: bool) -> None:
    """Raises SettingsError for a device that does not work in this kind of pool."""
    if settings.device == "mps" and forks:
        raise SettingsError(
            "EMBED_DEVICE=mps does not work in child processes; start the worker with -P solo"
        )


def check_weights(settings: Settings) -> None:
    """Raises ModelError if the model's files are not to be had, or not in the backend's form."""
    if settings.model == "fake":
        return
    find_weights(settings)
    if settings.backend == "onnx-int8":
        find_converted(settings)


def check_redis(settings: Settings, patience_s: float = PATIENCE_S) -> None:
    """Waits for Redis, and logs what of its configuration may lose texts. Raises BrokerDown.

    Later, Celery waits for a Redis that is away as long as it takes.
    """
    deadline = time.monotonic() + patience_s
    with connect(settings) as client:
        while True:
            try:
                client.ping()
                break
            except (redis.exceptions.RedisError, OSError) as error:
                if time.monotonic() + PAUSE_S > deadline:
                    raise BrokerDown(
                        f"no Redis answers at EMBED_BROKER_URL={redact(settings.broker_url)} "
                        f"({error}); start one, or correct the URL"
                    ) from error
            time.sleep(PAUSE_S)
        _warn_of_redis(client, settings)


def _warn_of_redis(client: redis.Redis, settings: Settings) -> None:
    try:
        reply = client.config_get(*durability.NAMES)
    except (redis.exceptions.RedisError, OSError) as error:
        logger.warning("Redis does not show its configuration: %s", error)
        return
    for remark in durability.examine(reply, settings):
        if remark.advice:
            logger.warning("Redis: %s; %s", remark.detail, remark.advice)


def check_store(settings: Settings, patience_s: float = PATIENCE_S) -> Collections:
    """Waits for the store. Raises StoreDown, or ModelMismatch about the default collection."""
    found = _wait_for_collections(settings, time.monotonic() + patience_s)
    made_by = found.made_by.get(settings.collection)
    if made_by is not None:
        sentence = describe_mismatch(
            settings.collection, made_by, settings.model_name, read_dimension(settings)
        )
        if sentence:
            raise ModelMismatch(sentence)
    return found


def _wait_for_collections(settings: Settings, deadline: float) -> Collections:
    while True:
        try:
            with read_address(settings.qdrant_url).open_http(REQUEST_TIMEOUT_S) as client:
                return _read_collections(client)
        except (
            httpx.HTTPError,
            httpx.InvalidURL,
            OSError,
            ValueError,
            KeyError,
            TypeError,
        ) as error:
            if time.monotonic() + PAUSE_S > deadline:
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
                raise StoreDown(
                    f"no Qdrant answers at EMBED_QDRANT_URL={redact(settings.qdrant_url)} "
                    f"({reason}); start one, or correct the URL"
                ) from error
        time.sleep(PAUSE_S)


def _read_collections(client: httpx.Client) -> Collections:
    names = [row["name"] for row in _get(client, "/collections")["collections"]]
    made_by = {}
    for name in names:
        config = _get(client, f"/collections/{name}")["config"]
        size = config["params"]["vectors"].get("size")
        if isinstance(size, int):  # otherwise its vectors have names: not one of ours
            made_by[name] = read_provenance(config.get("metadata"), size)
    return Collections(made_by)


def _get(client: httpx.Client, path: str) -> Any:
    return client.get(path).raise_for_status().json()["result"]
