"""What passes of the model cost: sums over all workers, and each pool child as it is now.

Children write through `record`, the web and `embedmill watch` read; any package may import it. The
sums are a hash of a fixed set of fields and outlive the children; what a child says of itself
expires unless it is said again.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any

import orjson
import redis
import redis.asyncio

from tasks.broker import redis_errors, text
from tasks.ledger import DEAD, DEAD_BYTES, Call, Script, Value
from tasks.settings import Settings

STATS = "embedmill:stats"
CHILDREN = "embedmill:children"
EXPIRY = "embedmill:children:expiry"
TTL_S = 15
RECORD = Script("record")

STAGES = ("claim", "tokenize", "encode", "queries", "upsert", "store_wait", "settle")
"""Parts of a pass. `queries` is what it was interrupted for. `upsert` is the time of the store's
calls, most of it while the next texts are encoded; `store_wait` is the part of it that the pass
waited for."""
COUNTERS = ("texts", "points", "model_calls", "computed_tokens", "padding_tokens")
"""Sums over all passes; padding is part of what is computed."""

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
BOUNDS: Mapping[str, Sequence[float]] = {
    **dict.fromkeys(STAGES, _SECONDS),
    "pass": _SECONDS,
    "query": _SECONDS,
    "queue_wait": (*_SECONDS[3:12], 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0),
    "pass_texts": (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024),
    "pass_tokens": (16, 64, 256, 1024, 4096, 16384, 65536, 262144),
}
"""Upper bounds of the histograms' buckets, inclusive: seconds, texts, tokens."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Observations by upper bound; `counts` has one more, of those above all bounds."""

    bounds: Sequence[float]
    counts: Sequence[int]
    sum: float

    def cumulative(self) -> list[tuple[str, int]]:
        """As Prometheus has it: how many were at most so large, up to `+Inf`."""
        names = [*map(str, self.bounds), "+Inf"]
        return list(zip(names, accumulate(self.counts), strict=True))


@dataclass(frozen=True, slots=True)
class ChildStatistics:
    """A process that embeds: its last pass, its rates over some ten seconds, its resources."""

    worker: str
    pid: int
    last_texts: int
    texts_per_s: float
    cpu_share: float
    """Of one core."""
    cpu_s: float
    rss_bytes: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """What has been measured, over all workers, since Redis began."""

    histograms: Mapping[str, Histogram]
    counters: Mapping[str, int]
    children: Sequence[ChildStatistics]
    dead_letters: int
    dead_letter_bytes: int


class Increments:
    """What is to be added to the sums: as large after many observations as after one."""

    def __init__(self) -> None:
        self.fields: dict[str, float] = {}

    def observe(self, name: str, value: float) -> None:
        """One more observation of a histogram of `BOUNDS`."""
        self.count(f"{name}:{bisect_left(BOUNDS[name], value)}", 1)
        self.count(f"{name}:sum", value)

    def count(self, name: str, by: float) -> None:
        """Add to one of `COUNTERS`."""
        self.fields[name] = self.fields.get(name, 0) + by


def record(child: ChildStatistics, increments: Increments, settings: Settings) -> Call[int]:
    """Add to the sums, and say how this child is, for `TTL_S` seconds."""
    args: list[Value] = [
        name_child(child.worker, child.pid),
        orjson.dumps(asdict(child)),
        TTL_S,
        orjson.dumps(increments.fields),
    ]
    return Call(RECORD, [STATS, CHILDREN, EXPIRY], args, int, settings.broker_url)


def forget(client: redis.Redis, worker: str, pids: Iterable[int]) -> None:
    """These children are no more. Raises redis' own errors."""
    names = [name_child(worker, pid) for pid in pids]
    if names:
        pipe = client.pipeline(transaction=True)
        pipe.hdel(CHILDREN, *names)
        pipe.zrem(EXPIRY, *names)
        pipe.execute()


def read_statistics(client: redis.Redis, settings: Settings) -> Statistics:
    """Raises BrokerDown."""
    with redis_errors(settings.broker_url):
        return _statistics(_queue_reads(client.pipeline(transaction=True)).execute())


async def read_statistics_async(client: "redis.asyncio.Redis", settings: Settings) -> Statistics:
    """Raises BrokerDown."""
    with redis_errors(settings.broker_url):
        return _statistics(await _queue_reads(client.pipeline(transaction=True)).execute())


def _queue_reads(pipe: Any) -> Any:
    pipe.hgetall(STATS)
    pipe.hgetall(CHILDREN)
    pipe.zrange(EXPIRY, 0, -1, withscores=True)
    pipe.xlen(DEAD)
    pipe.get(DEAD_BYTES)
    pipe.time()
    return pipe


def _statistics(reply: Sequence[Any]) -> Statistics:
    sums, rows, expiry, letters, letter_bytes, time = reply
    fields = {text(name): float(value) for name, value in sums.items()}
    now = float(time[0]) + float(time[1]) / 1e6
    alive = [rows[name] for name, expires_at in expiry if expires_at > now and name in rows]
    children = [ChildStatistics(**orjson.loads(row)) for row in alive]
    return Statistics(
        histograms={name: _histogram(name, fields) for name in BOUNDS},
        counters={name: round(fields.get(name, 0)) for name in COUNTERS},
        children=sorted(children, key=lambda child: (child.worker, child.pid)),
        dead_letters=letters,
        dead_letter_bytes=int(letter_bytes or 0) if letters else 0,
    )


def _histogram(name: str, fields: Mapping[str, float]) -> Histogram:
    bounds = BOUNDS[name]
    counts = [round(fields.get(f"{name}:{bucket}", 0)) for bucket in range(len(bounds) + 1)]
    return Histogram(bounds, counts, fields.get(f"{name}:sum", 0.0))


def name_child(worker: str, pid: int) -> str:
    """What a process that embeds is called in Redis."""
    return f"{worker}:{pid}"
