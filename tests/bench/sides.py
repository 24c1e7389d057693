"""The sides of a comparison: whole stacks, ours and the baselines', in fresh processes.

Each has private data, free ports, a Redis where it needs one, and the same local Qdrant server.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp

import orjson
import psutil

from tasks.settings import Settings
from tests.bench.baselines.model import BROKER_URL, MODEL, QDRANT_URL, READY
from tests.bench.baselines.raw import ONE_THREAD
from tests.bench.load import post_all
from tests.bench.store import Store
from tests.bench.usage import CpuMeter, Roles, family
from tests.bench.workload import Work
from tests.processes import Program, wait_until
from tests.qdrant_server import local_qdrant
from tests.redis_server import RedisServer, local_redis
from tests.web_server import WebServer, local_web
from tests.worker import Worker, local_worker
from workers.weights import find_weights

WARM_TIMEOUT_S = 300.0
IDLE_TIMEOUT_S = 300.0
CONNECTIONS = 4
QUIET = ("--no-access-log",)
"""As `embedmill up` starts the web; all baselines' too."""
ALTERNATING_TEXTS = 8
"""Of a request to the design whose processes share nothing: so small that each gets its part."""


@dataclass(frozen=True, slots=True)
class Run:
    """One ingestion: from the first POST sent to the last point in the store."""

    texts: int
    seconds: float
    cpu_s: dict[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        return self.texts / self.seconds


@dataclass(frozen=True, slots=True)
class Side:
    """A running stack that takes texts over HTTP and keeps vectors in a Qdrant."""

    name: str
    url: str
    store: Store
    roles: Callable[[], Roles]
    body: Callable[[str, list[str]], bytes]
    request_texts: int | None = None
    """Where it differs from the work's."""
    keep_alive: bool = True
    dimension: int | None = None
    """Where the collection has to be made for it."""

    def ingest(self, work: Work) -> Run:
        """Raises BenchError when a request is refused or points do not come."""
        if self.dimension is not None:
            self.store.create(work.collection, self.dimension)
        bodies = [self.body(work.collection, texts) for texts in work.requests(self.request_texts)]
        meter = CpuMeter(self.roles)
        began_s = time.monotonic()
        post_all(f"{self.url}/embed", bodies, connections=CONNECTIONS, keep_alive=self.keep_alive)
        ended_s = self.store.wait_for(work.collection, len(work.texts))
        return Run(len(work.texts), ended_s - began_s, meter.used_s())


@dataclass(frozen=True, slots=True)
class Product:
    """Our stack, with its processes."""

    side: Side
    redis: RedisServer
    qdrant_url: str
    web: WebServer
    worker: Worker
    settings: Settings


@contextmanager
def product(
    folder: Path,
    concurrency: int,
    *,
    name: str = "ours",
    app: str = "workers",
    qdrant_module: str = "compose.qdrant",
    **changes: str,
) -> Iterator[Product]:
    """Our stack, warm; `changes` are settings and other variables of its processes."""
    own = _own_folder(folder)
    with ExitStack() as ends:
        redis = ends.enter_context(local_redis(own))
        qdrant = ends.enter_context(local_qdrant(own / "qdrant", module=qdrant_module, env=changes))
        env = {"EMBED_BROKER_URL": redis.url, "EMBED_QDRANT_URL": qdrant.url, **changes}
        web = ends.enter_context(local_web(own, env, options=QUIET))
        worker = ends.enter_context(local_worker(own, env, concurrency=concurrency, app=app))
        store = Store(qdrant.url)
        ends.callback(store.close)

        def roles() -> Roles:
            return {
                "web": family(web.program.pid),
                "redis": family(redis.program.pid),
                "worker main": [psutil.Process(worker.program.pid)],
                "children": worker.children(),
                "qdrant": family(qdrant.process.pid),
            }

        side = Side(name, web.url, store, roles, our_body)
        yield Product(side, redis, qdrant.url, web, worker, _settings(env))


@contextmanager
def asyncio_queue(folder: Path, workers: int, dimension: int) -> Iterator[Side]:
    """FastAPI + asyncio.Queue with `workers` processes of one torch thread."""
    own = _own_folder(folder)
    with ExitStack() as ends:
        qdrant = ends.enter_context(local_qdrant(own / "qdrant"))
        env = _baseline_env(own, qdrant.url) | ONE_THREAD
        app = "tests.bench.baselines.asyncio_queue:app"
        web = ends.enter_context(local_web(own, env, workers=workers, app=app, options=QUIET))
        web.program.wait_until(
            lambda: _ready(own) == workers, "all are warm", timeout_s=WARM_TIMEOUT_S
        )
        store = Store(qdrant.url)
        ends.callback(store.close)
        yield Side(
            "FastAPI + asyncio.Queue",
            web.url,
            store,
            lambda: {"web": family(web.program.pid), "qdrant": family(qdrant.process.pid)},
            _their_body,
            request_texts=ALTERNATING_TEXTS,
            keep_alive=False,
            dimension=dimension,
        )


@contextmanager
def celery_texts(
    folder: Path, concurrency: int, dimension: int, *, one_thread: bool
) -> Iterator[Side]:
    """Celery with one text a task behind a FastAPI endpoint; `one_thread` a child, or torch's
    default number."""
    own = _own_folder(folder)
    app = "tests.bench.baselines.celery_texts"
    with ExitStack() as ends:
        redis = ends.enter_context(local_redis(own))
        qdrant = ends.enter_context(local_qdrant(own / "qdrant"))
        env = _baseline_env(own, qdrant.url) | {BROKER_URL: redis.url}
        env |= ONE_THREAD if one_thread else {}
        argv = [sys.executable, "-m", "celery", "-A", app, "worker", "-c", str(concurrency)]
        worker = Program([*argv, "--loglevel", "WARNING"], log=own / "worker.log", env=env)
        ends.callback(worker.stop)
        worker.wait_until(
            lambda: _ready(own) == concurrency, "all are warm", timeout_s=WARM_TIMEOUT_S
        )
        web = ends.enter_context(
            local_web(own, env, app="tests.bench.baselines.celery_web:app", options=QUIET)
        )
        store = Store(qdrant.url)
        ends.callback(store.close)
        yield Side(
            "Celery, a text a task" if one_thread else "Celery, default threads",
            web.url,
            store,
            lambda: {
                "web": family(web.program.pid),
                "redis": family(redis.program.pid),
                "worker main": [psutil.Process(worker.pid)],
                "children": family(worker.pid)[1:],
                "qdrant": family(qdrant.process.pid),
            },
            _their_body,
            dimension=dimension,
        )


def wait_until_idle(product: Product) -> None:
    """Until nothing is outstanding."""
    from tasks.snapshot import read_queue

    def idle() -> bool:
        queue = read_queue(product.redis.client, product.settings)
        return not queue.outstanding + queue.waiting + queue.reserved

    wait_until(idle, "the queue is empty", timeout_s=IDLE_TIMEOUT_S)


def _own_folder(folder: Path) -> Path:
    own = Path(mkdtemp(dir=folder))
    (own / "ready").mkdir()
    return own


def _ready(folder: Path) -> int:
    return len(list((folder / "ready").iterdir()))


def _baseline_env(folder: Path, qdrant_url: str) -> dict[str, str]:
    return {
        MODEL: str(find_weights(Settings())),
        QDRANT_URL: qdrant_url,
        READY: str(folder / "ready"),
    }


def _settings(env: Mapping[str, str]) -> Settings:
    names = {name: name.removeprefix("EMBED_").lower() for name in env}
    known = {names[name]: value for name, value in env.items() if name.startswith("EMBED_")}
    return Settings.model_validate(known)


def our_body(collection: str, texts: list[str]) -> bytes:
    """Both sides cut long texts off, as bare encode does: one point a text."""
    return orjson.dumps({"texts": texts, "collection": collection, "on_long": "truncate"})


def _their_body(collection: str, texts: list[str]) -> bytes:
    return orjson.dumps({"texts": texts, "collection": collection})
