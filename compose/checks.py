"""What `embedmill doctor` looks at, one function a subject; only `compose.doctor` imports it.

Each returns findings and raises nothing of its own: what is missing is the finding.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import httpx
import redis
from celery.utils.sysinfo import cpu_budget  # type: ignore[attr-defined]  # new in 5.7

from compose.errors import WebDown, WebRefused
from compose.web_client import WebClient
from tasks import durability
from tasks.broker import connect
from tasks.errors import EmbedError, ModelError, ModelMismatch, StoreDown
from tasks.presence import WorkerPresence, workers
from tasks.settings import PREFIX, Settings
from tasks.urls import redact
from workers.preflight import check_store
from workers.qdrant import read_address
from workers.weights import find_weights


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; `advice` says what to change."""

    level: Level
    subject: str
    detail: str
    advice: str = ""


Check = Callable[[Settings], Iterator[Finding]]


def check_settings(settings: Settings) -> Iterator[Finding]:
    """Those that are set, without credentials; that they are valid was seen when they were read."""
    if settings.file:
        yield Finding(Level.OK, "settings", f"{settings.file} is read; the environment wins")
    values = settings.redacted()
    given = [f"{PREFIX}{name.upper()}={values[name]}" for name in sorted(settings.model_fields_set)]
    yield Finding(Level.OK, "settings", ", ".join(given) or "all as they are by default")


def check_redis(settings: Settings) -> Iterator[Finding]:
    """That it answers, keeps what it acknowledges, and refuses rather than forgets."""
    url = redact(settings.broker_url)
    with connect(settings) as client:
        try:
            info: dict[str, Any] = client.info("server")
        except redis.RedisError as error:
            yield Finding(
                Level.PROBLEM,
                "redis",
                f"{url} does not answer: {error}",
                "start it (`embedmill up` brings one), or correct EMBED_BROKER_URL",
            )
            return
        version = info.get("valkey_version") or info["redis_version"]
        yield Finding(Level.OK, "redis", f"{info.get('server_name', 'redis')} {version} at {url}")
        yield from _check_redis_configuration(client, settings)


def check_qdrant(settings: Settings) -> Iterator[Finding]:
    """That it answers, and that the collection was made by this model."""
    url = redact(settings.qdrant_url)
    try:
        with read_address(settings.qdrant_url).open_http(5.0) as client:
            about = client.get("/").raise_for_status().json()
        collections = check_store(settings, patience_s=0.0)
    except (httpx.HTTPError, OSError, ValueError) as error:
        yield Finding(
            Level.PROBLEM,
            "qdrant",
            f"{url} does not answer: {error}",
            "start it (`embedmill up` brings one), or correct EMBED_QDRANT_URL",
        )
    except (StoreDown, ModelMismatch) as error:
        yield Finding(Level.PROBLEM, "qdrant", error.detail)
    except ModelError:
        return  # said by `check_model`
    else:
        yield Finding(Level.OK, "qdrant", f"{about.get('version', 'unknown version')} at {url}")
        made_by = collections.made_by.get(settings.collection)
        state = f"made by {made_by.model or 'others'}" if made_by else "will be made when needed"
        yield Finding(Level.OK, "collection", f"{settings.collection}: {state}")


def check_model(settings: Settings) -> Iterator[Finding]:
    """That its weights are to be had, and the device that was asked for is there."""
    if settings.model == "fake":
        yield Finding(
            Level.WARNING,
            "model",
            "the fake encoder: its vectors mean nothing",
            "unset EMBED_MODEL for real ones",
        )
        return
    try:
        folder = find_weights(settings)
    except EmbedError as error:
        yield Finding(Level.PROBLEM, "model", error.detail)
        return
    yield Finding(Level.OK, "model", f"{settings.model_name} in {folder}")
    if settings.device in {"cuda", "mps"}:
        yield _check_device(settings.device)


def check_workers(settings: Settings) -> Iterator[Finding]:
    """That some consume the queue, have loaded this model, and share the cores."""
    with connect(settings) as client:
        try:
            found = workers(client)
        except redis.RedisError:
            return  # said by `check_redis`
    if not found:
        yield Finding(
            Level.PROBLEM,
            "workers",
            "none consumes the queue",
            "start `embedmill up`, or `celery -A workers worker`",
        )
    for worker in found:
        yield _check_worker(worker, settings)


def check_threads(settings: Settings) -> Iterator[Finding]:
    """That the children's threads do not outnumber the cores, where they are set by hand."""
    cores = cpu_budget().count
    children = settings.concurrency or cores
    threads = settings.threads or max(1, cores // children)
    detail = f"{children} children with {threads} threads each on {cores:g} cores"
    if children * threads > cores and settings.device in {"auto", "cpu"}:
        advice = "lower EMBED_CONCURRENCY or EMBED_THREADS: more threads than cores are slower"
        yield Finding(Level.WARNING, "threads", detail, advice)
    else:
        yield Finding(Level.OK, "threads", detail)


def check_web(url: str) -> Iterator[Finding]:
    """That it finds the whole pipeline working, if it runs."""
    try:
        with WebClient(url) as client:
            readiness = client.readiness()
    except WebDown:
        advice = "start it if texts shall come over HTTP: `embedmill up`"
        yield Finding(Level.WARNING, "web", f"none runs at {redact(url)}", advice)
        return
    except WebRefused as error:
        yield Finding(Level.PROBLEM, "web", error.detail)
        return
    if readiness.ready:
        yield Finding(Level.OK, "web", f"ready at {redact(url)}")
    for trouble in readiness.troubles:
        yield Finding(Level.PROBLEM, "web", f"{redact(url)}: {trouble.detail}")


def _check_redis_configuration(client: redis.Redis, settings: Settings) -> Iterator[Finding]:
    try:
        reply = client.config_get(*durability.NAMES)
    except redis.RedisError as error:
        advice = "see that it has appendonly yes, appendfsync always, maxmemory-policy noeviction"
        yield Finding(Level.WARNING, "redis", f"does not show its configuration: {error}", advice)
        return
    for remark in durability.examine(reply, settings):
        yield Finding(_level(remark), "redis", remark.detail, remark.advice)


def _level(remark: durability.Remark) -> Level:
    if not remark.advice:
        return Level.OK
    return Level.PROBLEM if remark.serious else Level.WARNING


def _check_device(device: str) -> Finding:
    import torch

    present = torch.cuda.is_available() if device == "cuda" else torch.backends.mps.is_available()
    if present:
        return Finding(Level.OK, "device", device)
    advice = "set EMBED_DEVICE=cpu, or install a build of torch and a driver that have it"
    return Finding(Level.PROBLEM, "device", f"torch {torch.__version__} sees no {device}", advice)


def _check_worker(worker: WorkerPresence, settings: Settings) -> Finding:
    detail = f"{worker.name}: {worker.warm} of {worker.concurrency} children have loaded the model"
    expected = settings.model_name
    if worker.card and worker.card.name != expected:
        advice = "set EMBED_MODEL to the same everywhere"
        detail = f"{worker.name} runs {worker.card.name}, the settings here say {expected}"
        return Finding(Level.PROBLEM, "workers", detail, advice)
    if worker.warm < worker.concurrency:
        return Finding(
            Level.WARNING, "workers", detail, "wait for them, or look at the worker's log"
        )
    return Finding(Level.OK, "workers", detail)
