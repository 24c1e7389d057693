"""`POST /embed` of one text without a worker, over a bare FastAPI endpoint with the same body."""

from contextlib import ExitStack

import orjson

from tests.bench.bench import Bench
from tests.bench.figures import pair
from tests.bench.load import flood, render
from tests.bench.sides import QUIET
from tests.bench.workload import corpus
from tests.redis_server import RedisServer, local_redis
from tests.web_server import WebServer, local_web

KEY = "accept_over_bare_fastapi"
CONNECTIONS = 32
ROOM = {"EMBED_QUEUE_LIMIT": str(10_000_000), "EMBED_QUEUE_BYTES": str(4 * 1024**3)}
REQUESTS = 1000


def measure(bench: Bench) -> None:
    bench.part(lambda: _measure(bench), KEY)


def _measure(bench: Bench) -> None:
    with ExitStack() as ends:
        redis = ends.enter_context(local_redis(bench.folder))
        env = {"EMBED_BROKER_URL": redis.url, **ROOM}
        ours = ends.enter_context(local_web(bench.folder, env, options=QUIET))
        app = "tests.bench.baselines.bare_fastapi:app"
        bare = ends.enter_context(local_web(bench.folder, env, app=app, options=QUIET))
        details = {
            f"{connections}_connections": _interleave(bench, ours, bare, redis, connections)
            for connections in ((CONNECTIONS, 1) if bench.scale.extras else (CONNECTIONS,))
        }
    main = details[f"{CONNECTIONS}_connections"]
    bench.results.record(KEY, main["value"], main | details)


def _interleave(
    bench: Bench, ours: WebServer, bare: WebServer, redis: RedisServer, connections: int
) -> dict[str, float]:
    _burst(ours, connections, 0.5)
    _burst(bare, connections, 0.5)
    rates: dict[str, list[float]] = {"ours": [], "bare": []}
    for _ in range(bench.scale.accept_rounds):
        redis.client.flushall()
        rates["bare"].append(_burst(bare, connections, bench.scale.accept_s))
        rates["ours"].append(_burst(ours, connections, bench.scale.accept_s))
    return pair(rates["ours"], rates["bare"]).as_details()


def _burst(web: WebServer, connections: int, seconds: float) -> float:
    url = f"{web.url}/embed"
    texts = corpus()[:REQUESTS]
    requests = [render(url, orjson.dumps({"text": text})) for text in texts]
    return flood(url, requests, connections=connections, seconds=seconds)
