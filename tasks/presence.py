"""Who works: workers announce themselves and their model here, the web reads it.

Workers write, the web and the local stack read. An announcement that is not renewed expires.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import orjson
import redis

from tasks.broker import text
from tasks.messages import ModelCard

WORKERS = "embedmill:workers"
COLLECTIONS = "embedmill:collections"


@dataclass(frozen=True, slots=True)
class GpuUse:
    """A GPU by its number or UUID: the share of the last second or so in which it computed, where
    that can be told, and its memory, whoever takes it."""

    name: str
    utilization: float | None
    memory_used_bytes: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class WorkerPresence:
    """A worker's main process: `warm` of its `concurrency` children have loaded the model, and the
    one that has been at its work for longest began `busy_s` seconds ago."""

    name: str
    pid: int
    concurrency: int
    warm: int
    card: ModelCard | None
    busy_s: float = 0.0
    gpus: Sequence[GpuUse] = ()


_FIELDS = frozenset(field.name for field in fields(WorkerPresence)) - {"card", "gpus"}


def announce(client: redis.Redis, presence: WorkerPresence, *, ttl_s: float) -> None:
    """Say that this worker is there, for `ttl_s` seconds. Raises redis' own errors."""
    now = _now(client)
    row = {"expires_at": now + ttl_s, **asdict(presence)}
    known = client.hgetall(WORKERS)
    gone = [name for name, value in known.items() if orjson.loads(value)["expires_at"] < now]
    if gone:
        client.hdel(WORKERS, *gone)
    client.hset(WORKERS, _key(presence.name, presence.pid), orjson.dumps(row))


def retire(client: redis.Redis, name: str, pid: int) -> None:
    """Say that this worker has gone."""
    client.hdel(WORKERS, _key(name, pid))


def workers(client: redis.Redis) -> list[WorkerPresence]:
    """Those whose announcement has not expired. Raises redis' own errors."""
    return read_workers(client.hgetall(WORKERS), _now(client))


def read_workers(rows: Mapping[Any, bytes | str], now: float) -> list[WorkerPresence]:
    """Announcements as Redis returns them, without the expired ones, by name."""
    found = []
    for value in rows.values():
        row = orjson.loads(value)
        if row["expires_at"] >= now:
            found.append(_presence(row))
    return sorted(found, key=lambda worker: worker.name)


def record_collection(client: redis.Redis, collection: str, model: str, dimension: int) -> None:
    """Say which model a collection was made by, so that the web can refuse another at the door."""
    client.hset(COLLECTIONS, collection, orjson.dumps({"model": model, "dimension": dimension}))


def forget_collections(client: redis.Redis, existing: Collection[str]) -> None:
    """Forget who made the collections that exist no more: whoever comes next may make them."""
    gone = [name for name in client.hkeys(COLLECTIONS) if text(name) not in existing]
    if gone:
        client.hdel(COLLECTIONS, *gone)


def _presence(row: Mapping[str, Any]) -> WorkerPresence:
    """Of a newer worker as well: workers are upgraded first, and what they add is passed over."""
    card, gpus = row["card"], row.get("gpus", ())
    return WorkerPresence(
        **{name: value for name, value in row.items() if name in _FIELDS},
        card=ModelCard(**card) if card else None,
        gpus=tuple(GpuUse(**gpu) for gpu in gpus),
    )


def _key(name: str, pid: int) -> str:
    """Nothing keeps two workers from having one name."""
    return f"{name}:{pid}"


def _now(client: redis.Redis) -> float:
    seconds, microseconds = client.time()
    return float(seconds) + float(microseconds) / 1e6
