"""The services of a local stack as ordinary commands; only `compose` imports it."""

import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from compose.errors import StackError
from compose.ports import HOST, choose, is_free
from compose.probes import answers_get, answers_ping, has_warm_child
from compose.redis_server import find_server, server_command
from compose.service import Service
from tasks.settings import DEFAULT_MODEL, PREFIX, Settings, child_environment
from tasks.urls import redact
from workers.qdrant import read_address

USUAL_PORTS = (6379, 6333, 5555)
WEB_PORT = 8080
GIVEN_TIMEOUT_S = 5.0
"""For a server that is said to run already."""
PIPELINE_TIMEOUT_S = 60.0
WEB_DRAIN_S = 10
WORKER_DRAIN_S = 120.0
"""For a worker that is asked to stop: what its children hold takes seconds on a CPU, and longer
when the store does not answer."""

FLOWER_TASKS = 10_000
"""Whose life it remembers."""
WORKER_NAME = "embedmill@%h"
"""Not Celery's usual one: that is for a worker that somebody starts by hand beside it."""
PYTHON = (sys.executable, "-m")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `embedmill up` can be told. `port` 0: free ports for all; unset numbers: the settings'
    and the programs' own defaults. `isolated`: with a Redis and a Qdrant of its own even where the
    settings name others."""

    data_dir: Path | None = None
    port: int = WEB_PORT
    web_workers: int | None = None
    concurrency: int | None = None
    without: frozenset[str] = frozenset()
    isolated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Where everything is going to be."""

    options: Options
    settings: Settings
    data_dir: Path
    redis_url: str
    qdrant_url: str
    web_url: str
    flower_url: str
    environment: dict[str, str]
    own_redis: bool
    own_qdrant: bool


def make_plan(options: Options, settings: Settings, data_dir: Path) -> Plan:
    """Choose addresses. Raises StackError when the web's port is taken."""
    check_web_port(options)
    usual = USUAL_PORTS if options.port else (0, 0, 0)
    redis_port, qdrant_port, flower_port, web_port = choose((*usual, options.port))
    own_redis = _is_own("redis", "broker_url", options, settings)
    own_qdrant = _is_own("qdrant", "qdrant_url", options, settings)
    redis_url = f"redis://{HOST}:{redis_port}/0" if own_redis else settings.broker_url
    qdrant_url = f"http://{HOST}:{qdrant_port}" if own_qdrant else settings.qdrant_url
    return Plan(
        options=options,
        settings=settings,
        data_dir=data_dir,
        redis_url=redis_url,
        qdrant_url=qdrant_url,
        web_url=f"http://{HOST}:{web_port}",
        flower_url=f"http://{HOST}:{flower_port}",
        environment=_environment(settings, data_dir, redis_url, qdrant_url),
        own_redis=own_redis,
        own_qdrant=own_qdrant,
    )


def list_services(plan: Plan) -> list[Service]:
    """Those of the plan, in start order. Raises StackError without a Redis server."""
    makers: dict[str, Callable[[Plan], Service]] = {
        "redis": _redis if plan.own_redis else _given_redis,
        "qdrant": _qdrant if plan.own_qdrant else _given_qdrant,
        "worker": _worker,
        "web": _web,
        "flower": _flower,
    }
    services = [make(plan) for name, make in makers.items() if _is_wanted(name, plan)]
    if not plan.options.without & {"worker", "web"}:
        services.append(_pipeline(plan))
    return services


def qdrant_command(folder: Path, port: int) -> tuple[str, ...]:
    """The local Qdrant server."""
    return (*PYTHON, "compose.qdrant", "--data-dir", str(folder), "--port", str(port))


def list_exports(plan: Plan) -> dict[str, str]:
    """The variables by which another terminal reaches servers of ours that are not where they
    usually are: none when all are."""
    own = {"broker_url": (plan.own_redis, plan.redis_url)}
    own |= {"qdrant_url": (plan.own_qdrant, plan.qdrant_url)}
    exports = {
        PREFIX + field.upper(): url
        for field, (is_own, url) in own.items()
        if is_own and url != Settings.model_fields[field].default
    }
    if exports and plan.settings.model_name != DEFAULT_MODEL:
        exports["EMBED_MODEL"] = plan.environment["EMBED_MODEL"]
    return exports


def check_web_port(options: Options) -> None:
    """Raises StackError when the web's port is taken."""
    if options.port and "web" not in options.without and not is_free(options.port):
        raise StackError(
            f"port {options.port} is taken by another program: choose one with --port, "
            "or any free one with --port 0"
        )


def _is_own(name: str, setting: str, options: Options, settings: Settings) -> bool:
    given = setting in settings.model_fields_set and not options.isolated
    return name not in options.without and not given


def _is_wanted(name: str, plan: Plan) -> bool:
    """A server that runs elsewhere is probed when something here needs it."""
    without = plan.options.without
    if name == "redis":
        return plan.own_redis or not {"worker", "web", "flower"} <= without
    if name == "qdrant":
        return plan.own_qdrant or "worker" not in without
    return name not in without


def _environment(
    settings: Settings, data_dir: Path, redis_url: str, qdrant_url: str
) -> dict[str, str]:
    """For all children, who start in another folder than the user's: paths are made absolute."""
    model = Path(settings.model)
    keys = settings.api_keys_file
    return child_environment(
        settings.file,
        EMBED_BROKER_URL=redis_url,
        EMBED_QDRANT_URL=qdrant_url,
        EMBED_DATA_DIR=str(data_dir),
        EMBED_MODEL=str(model.resolve()) if model.is_dir() else settings.model,
        EMBED_API_KEYS_FILE=str(keys.resolve()) if keys else "",
        PYTHONUNBUFFERED="1",
    )


def _redis(plan: Plan) -> Service:
    folder = _folder(plan.data_dir / "redis")
    port = int(plan.redis_url.rpartition(":")[2].partition("/")[0])
    return Service(
        name="redis",
        command=server_command(find_server(), folder, port, plan.settings),
        environment=plan.environment,
        probe=answers_ping(plan.redis_url),
        url=plan.redis_url,
        stop_timeout_s=30.0,
    )


def _given_redis(plan: Plan) -> Service:
    return Service(
        name="redis",
        probe=answers_ping(plan.redis_url),
        url=plan.redis_url,
        advice=_advise("redis", "EMBED_BROKER_URL", plan.redis_url, plan),
        start_timeout_s=GIVEN_TIMEOUT_S,
    )


def _qdrant(plan: Plan) -> Service:
    folder = _folder(plan.data_dir / "qdrant")
    port = int(plan.qdrant_url.rpartition(":")[2])
    return Service(
        name="qdrant",
        command=qdrant_command(folder, port),
        environment=plan.environment,
        probe=answers_get(f"{plan.qdrant_url}/readyz"),
        url=plan.qdrant_url,
        stop_timeout_s=60.0,
    )


def _given_qdrant(plan: Plan) -> Service:
    return Service(
        name="qdrant",
        probe=answers_get(f"{read_address(plan.qdrant_url).url}/readyz"),
        url=plan.qdrant_url,
        advice=_advise("qdrant", "EMBED_QDRANT_URL", plan.qdrant_url, plan),
        start_timeout_s=GIVEN_TIMEOUT_S,
    )


def _advise(name: str, variable: str, url: str, plan: Plan) -> str:
    """What to do about a server that runs elsewhere and does not answer."""
    other = f"take {name} out of --without" if name in plan.options.without else f"unset {variable}"
    return f"start the one of {variable}={redact(url)}, or {other} and `embedmill up` brings one"


def _worker(plan: Plan) -> Service:
    concurrency = plan.options.concurrency
    flags: tuple[str, ...] = ("-c", str(concurrency)) if concurrency else ()
    flags += ("-n", WORKER_NAME)
    if plan.settings.device == "mps":  # its processes must not fork
        flags += ("-P", "solo")
    return Service(
        name="worker",
        command=(*PYTHON, "celery", "-A", "workers", "worker", *flags),
        environment=plan.environment,
        probe=has_warm_child(plan.redis_url),
        start_timeout_s=plan.settings.load_timeout_s + 60.0,
        stop_timeout_s=WORKER_DRAIN_S,
    )


def _web(plan: Plan) -> Service:
    """Without an access log: at thousands of requests a second it costs more than the requests."""
    host, port = plan.web_url.removeprefix("http://").split(":")
    processes = plan.options.web_workers or plan.settings.web_workers
    where = ("--host", host, "--port", port, "--workers", str(processes))
    drain = ("--timeout-graceful-shutdown", str(WEB_DRAIN_S))
    return Service(
        name="web",
        command=(*PYTHON, "uvicorn", "webapp.main:app", *where, *drain, "--no-access-log"),
        environment=plan.environment,
        probe=answers_get(f"{plan.web_url}/livez"),
        url=plan.web_url,
        stop_timeout_s=WEB_DRAIN_S + 10.0,
    )


def _flower(plan: Plan) -> Service:
    """The password goes by environment: everybody can read a command line."""
    host, port = plan.flower_url.removeprefix("http://").split(":")
    login = {"user": "embedmill", "password": secrets.token_urlsafe(12)}
    # by itself it would keep 100,000, which nobody pages through
    where = (f"--address={host}", f"--port={port}", f"--max-tasks={FLOWER_TASKS}")
    return Service(
        name="flower",
        command=(*PYTHON, "celery", "-A", "tasks", "flower", *where),
        environment={**plan.environment, "FLOWER_BASIC_AUTH": ":".join(login.values())},
        probe=answers_get(f"{plan.flower_url}/healthcheck"),
        url=plan.flower_url,
        details=login,
        stop_timeout_s=10.0,
    )


def _pipeline(plan: Plan) -> Service:
    """Not a process: that those above work together."""
    return Service(
        name="the pipeline",
        probe=answers_get(f"{plan.web_url}/readyz"),
        start_timeout_s=PIPELINE_TIMEOUT_S,
    )


def _folder(path: Path) -> Path:
    try:
        path.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StackError(f"{path} cannot be made: {error}") from error
    return path
