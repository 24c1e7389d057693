"""What settings do: web processes, children, queue limit, prefetch. `--only settings` takes it.

One row a value, in one go of about five minutes on two idle cores. The model is the real one where
its speed matters; where waiting matters it is the fake one, whose cost is time and no CPU.
"""

import logging
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import orjson

from tasks.snapshot import UNACKED, JobSnapshot, read_job
from tests.bench.bench import Bench
from tests.bench.load import flood, render
from tests.bench.results import BenchError
from tests.bench.sides import QUIET, Product, product
from tests.bench.workload import Work, corpus, sample
from tests.processes import wait_until
from tests.redis_server import local_redis
from tests.web_server import local_web
from tests.worker import local_worker

logger = logging.getLogger(__name__)

KEY = "settings"
EMBEDMILL = str(Path(sys.executable).parent / "embedmill")
WEB_WORKERS = CHILDREN = (1, 2, 4, 8)
PREFETCH = (1, 2, 4, 8, 64)
LIMITS = (50, 500, 5000)
CONNECTIONS = 64
FLOOD_S = 2.5
TEXTS = 256
SINGLES = 192
LONG_TEXTS, SHORT_MESSAGES = 64, 16
OVERLOAD = 1.5
"""Arrivals over what two children of the fake encoder can do."""
LOAD_S = 8
TIMEOUT_S = 120.0
FAKE = {"EMBED_MODEL": "fake", "EMBED_FAKE_DIMENSION": "32", "EMBED_FAKE_TEXT_MS": "10"}
SLOW = FAKE | {"EMBED_FAKE_TEXT_MS": "50"}
ROOM = {"EMBED_QUEUE_LIMIT": "10000000", "EMBED_QUEUE_BYTES": str(4 * 1024**3)}

Row = dict[str, float]


def measure(bench: Bench) -> None:
    """Only when it is named: it is not among what is measured to be compared."""
    if KEY in bench.only:
        bench.part(lambda: _measure(bench), KEY)


def _measure(bench: Bench) -> None:
    parts: dict[str, Callable[[Bench], dict[str, Row]]] = {
        "web_workers": web_workers,
        "children": children,
        "queue_limit": queue_limit,
        "prefetch": prefetch,
        "prefetch_behind_a_long_one": prefetch_behind_a_long_one,
    }
    found = bench.results.details.setdefault(KEY, {})
    for name, part in parts.items():
        began_s = time.monotonic()
        found[name] = part(bench)
        logger.info("  %s took %.0f s", name, time.monotonic() - began_s)


def web_workers(bench: Bench) -> dict[str, Row]:
    """Requests of one text that are accepted a second, without a worker; there and back again, so
    that what else the machine does meets all."""
    rates: dict[int, list[float]] = {count: [] for count in WEB_WORKERS}
    with local_redis(bench.folder) as redis:
        env = {"EMBED_BROKER_URL": redis.url, **ROOM}
        for count in (*WEB_WORKERS, *reversed(WEB_WORKERS)):
            with local_web(bench.folder, env, workers=count, options=QUIET) as web:
                url = f"{web.url}/embed"
                requests = [render(url, orjson.dumps({"text": text})) for text in corpus()[:1000]]
                flood(url, requests, connections=CONNECTIONS, seconds=0.5)
                rate = flood(url, requests, connections=CONNECTIONS, seconds=FLOOD_S)
                rates[count].append(rate)
            redis.client.flushall()
    return {str(count): {"accepted_per_s": median(found)} for count, found in rates.items()}


def children(bench: Bench) -> dict[str, Row]:
    """Texts stored a second, the cores divided among the children."""
    found: dict[str, Row] = {}
    for count in CHILDREN:
        with product(bench.folder, count) as stack:
            stack.side.ingest(Work("warm", sample(64)))
            rates = [stack.side.ingest(Work(f"c{n}", sample(TEXTS))).rate for n in range(2)]
        found[str(count)] = {"texts_per_s": max(rates)}
    return found


def queue_limit(bench: Bench) -> dict[str, Row]:
    """Arrivals half as many again as can be done, whose senders come again when they are told to:
    what is refused, how long an accepted text waits, and what is done meanwhile."""
    found: dict[str, Row] = {}
    for limit in LIMITS:
        with product(bench.folder, 2, EMBED_QUEUE_LIMIT=str(limit), **FAKE) as stack:
            rate = OVERLOAD * 2 * 1000 / float(FAKE["EMBED_FAKE_TEXT_MS"])
            row = _load(stack, "--rate", str(rate), "--duration", str(LOAD_S), "--settled")
        settled, accepted = row["latency_ms"]["settled"], row["latency_ms"].get("accepted")
        found[str(limit)] = {
            "refused_share": row["refused"] / (row["answered"] + row["refused"]),
            "settled_p50_s": settled["p50"] / 1000,
            "settled_p99_s": settled["p99"] / 1000,
            "accepted_p99_s": (accepted or row["latency_ms"]["answer"])["p99"] / 1000,
            "accepted_per_s": row["answered_per_s"],
        }
    return found


def _load(stack: Product, *options: str) -> dict[str, Any]:
    argv = [EMBEDMILL, "loadtest", "--url", stack.side.url, *options, "--json"]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if ended.returncode:
        raise BenchError(f"loadtest: {ended.stderr[-300:]}")
    row: dict[str, Any] = orjson.loads(ended.stdout)
    return row


def prefetch(bench: Bench) -> dict[str, Row]:
    """Texts stored a second, each in a message of its own, so that batches are made of messages."""
    found: dict[str, Row] = {}
    for multiplier in PREFETCH:
        with product(bench.folder, 2, EMBED_PREFETCH_MULTIPLIER=str(multiplier)) as stack:
            stack.side.ingest(Work("warm", sample(64)))
            run = stack.side.ingest(Work("singles", sample(SINGLES), request_texts=1))
        found[str(multiplier)] = {"texts_per_s": run.rate}
    return found


def prefetch_behind_a_long_one(bench: Bench) -> dict[str, Row]:
    """Two workers of one child. One is at a long message when short ones come: what it has fetched
    ahead waits for it, although the other has nothing to do."""
    found: dict[str, Row] = {}
    for multiplier in PREFETCH:
        changes = {**SLOW, "EMBED_PREFETCH_MULTIPLIER": str(multiplier)}
        with product(bench.folder, 1, **changes) as stack:
            env = {"EMBED_BROKER_URL": stack.redis.url, "EMBED_QDRANT_URL": stack.qdrant_url}
            with local_worker(bench.folder, env | changes, concurrency=1, name="second"):
                found[str(multiplier)] = _send_a_long_one_and_short_ones(stack)
    return found


def _send_a_long_one_and_short_ones(stack: Product) -> Row:
    texts = corpus()
    with httpx.Client(base_url=stack.side.url, trust_env=False) as client:
        long_id = _post(client, texts[:LONG_TEXTS])
        wait_until(lambda: stack.redis.client.hlen(UNACKED), "a worker has the long one")
        short_ids = [_post(client, [text]) for text in texts[LONG_TEXTS:][:SHORT_MESSAGES]]
    waits_s = [_settling_s(stack, job_id) for job_id in short_ids]
    return {
        "long_s": _settling_s(stack, long_id),
        "short_median_s": median(waits_s),
        "short_worst_s": max(waits_s),
    }


def _post(client: httpx.Client, texts: Sequence[str]) -> str:
    answer = client.post("/embed", json={"texts": texts, "on_long": "truncate"})
    return str(answer.raise_for_status().json()["job_id"])


def _settling_s(stack: Product, job_id: str) -> float:
    """From its acceptance until it is settled."""

    def look() -> JobSnapshot:
        return read_job(stack.redis.client, job_id, stack.settings)

    wait_until(lambda: look().settled_at, "the job is settled", timeout_s=TIMEOUT_S)
    job = look()
    return (job.settled_at or 0.0) - job.created_at
