"""What the ledger and the queue look like now: reading only. Any package may import it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import redis
import redis.asyncio

from tasks.broker import redis_errors, text
from tasks.drain import drain_rate
from tasks.errors import JobNotFound
from tasks.ledger import DRAIN, JOBS, OUTSTANDING, TOTALS, job_key
from tasks.messages import QUEUE
from tasks.presence import WORKERS, WorkerPresence, read_workers
from tasks.settings import Settings

JOB_READS = 3
"""Commands that read a job."""
UNACKED = "unacked"
"""kombu's hash of messages that a worker holds."""
COUNTERS = (
    "accepted",
    "done",
    "failed",
    "cancelled",
    "refused",
    "points",
    "truncated",
    "unchanged",
)
EVENTS = ("refusals", "redelivered", "returned", "dead_letters")
"""Further totals: requests refused, messages whose work began again after their process was lost,
messages given back because store or ledger were away, dead letters ever written."""


@dataclass(frozen=True, slots=True)
class JobSnapshot:
    """A job as `GET /jobs/{id}` shows it. Times in Unix seconds, rates in texts a second."""

    job_id: str
    state: str
    collection: str
    model: str
    accepted: int
    done: int
    failed: int
    cancelled: int
    chunked: int
    truncated: int
    points: int
    unchanged: int
    rate_per_s: float
    eta_s: float | None
    created_at: float
    settled_at: float | None
    errors: list[dict[str, Any]]

    @property
    def settled(self) -> int:
        """Documents whose outcome is known."""
        return self.done + self.failed + self.cancelled


@dataclass(frozen=True, slots=True)
class QueueSnapshot:
    """The queue as `GET /queue` shows it.

    `waiting` and `reserved` count messages (in Redis' list; held by workers), the others texts.
    `limit` is this process' setting, `kept_limit` the one that the last accept kept to.
    """

    waiting: int
    reserved: int
    outstanding: int
    outstanding_bytes: int
    limit: int
    kept_limit: int | None
    limit_bytes: int
    oldest_age_s: float
    idle_s: float
    drain_rate_per_s: float
    workers: list[WorkerPresence]
    totals: Mapping[str, int]

    def __str__(self) -> str:
        """In words, for logs."""
        return (
            f"waiting {self.waiting}, reserved {self.reserved}, outstanding {self.outstanding}, "
            f"oldest {self.oldest_age_s:.0f} s, {self.drain_rate_per_s:.0f} texts/s, "
            f"workers {len(self.workers)}"
        )


def read_job(client: redis.Redis, job_id: str, settings: Settings) -> JobSnapshot:
    """Raises JobNotFound, BrokerDown."""
    with redis_errors(settings.broker_url):
        reply = _queue_job_reads(client.pipeline(transaction=True), job_id).execute()
    return _job(job_id, reply)


async def read_job_async(
    client: "redis.asyncio.Redis", job_id: str, settings: Settings
) -> JobSnapshot:
    """Raises JobNotFound, BrokerDown."""
    with redis_errors(settings.broker_url):
        reply = await _queue_job_reads(client.pipeline(transaction=True), job_id).execute()
    return _job(job_id, reply)


async def read_jobs_async(
    client: "redis.asyncio.Redis", job_ids: Sequence[str], settings: Settings
) -> list[JobSnapshot | None]:
    """Several in one round trip; None where there is no such job. Raises BrokerDown, and
    JobNotFound for what is no id of a job."""
    with redis_errors(settings.broker_url):
        async with client.pipeline(transaction=True) as pipe:
            for job_id in job_ids:
                _queue_job_reads(pipe, job_id)
            reply = await pipe.execute()
    rows = [reply[at : at + JOB_READS] for at in range(0, len(reply), JOB_READS)]
    return [_job(*pair) if pair[1][0] else None for pair in zip(job_ids, rows, strict=True)]


def read_queue(client: redis.Redis, settings: Settings) -> QueueSnapshot:
    """Raises BrokerDown."""
    with redis_errors(settings.broker_url):
        reply = _queue_reads(client.pipeline(transaction=True)).execute()
    return _queue(reply, settings)


async def read_queue_async(client: "redis.asyncio.Redis", settings: Settings) -> QueueSnapshot:
    """Raises BrokerDown."""
    with redis_errors(settings.broker_url):
        reply = await _queue_reads(client.pipeline(transaction=True)).execute()
    return _queue(reply, settings)


def _queue_job_reads(pipe: Any, job_id: str) -> Any:
    job = job_key(job_id)
    pipe.hgetall(job)
    pipe.lrange(f"{job}:errors", 0, 99)
    pipe.time()
    return pipe


def _job(job_id: str, reply: Sequence[Any]) -> JobSnapshot:
    values = {text(key): text(value) for key, value in reply[0].items()}
    if not values:
        raise JobNotFound(f"there is no job {job_id[:64]!r}, or it was settled long ago")
    counts = {name: int(values.get(name, 0)) for name in ("accepted", *COUNTERS[1:4])}
    settled_at = float(values["settled_at"]) if "settled_at" in values else None
    started_at = float(values.get("started_at", 0))
    until = settled_at if settled_at is not None else _now(reply[2])
    worked = counts["done"] + counts["failed"]
    rate = worked / max(until - started_at, 0.001) if started_at else 0.0
    left = counts["accepted"] - worked - counts["cancelled"]
    return JobSnapshot(
        job_id=job_id,
        state=values["state"],
        collection=values["collection"],
        model=values["model"],
        **counts,
        chunked=int(values.get("chunked", 0)),
        truncated=int(values.get("truncated", 0)),
        unchanged=int(values.get("unchanged", 0)),
        points=int(values.get("points", 0)),
        rate_per_s=round(rate, 3),
        eta_s=(round(left / rate, 1) if rate else None) if left else 0.0,
        created_at=float(values["created_at"]),
        settled_at=settled_at,
        errors=[orjson.loads(row) for row in reply[1]],
    )


def _queue_reads(pipe: Any) -> Any:
    pipe.llen(QUEUE)
    pipe.hlen(UNACKED)
    pipe.hmget(OUTSTANDING, "texts", "bytes", "limit")
    pipe.zrange(JOBS, 0, 0, withscores=True)
    pipe.hmget(DRAIN, "rate", "at", "since")
    pipe.hgetall(WORKERS)
    pipe.hgetall(TOTALS)
    pipe.time()
    return pipe


def _queue(reply: Sequence[Any], settings: Settings) -> QueueSnapshot:
    waiting, reserved, held, oldest, drain, workers, totals, time = reply
    now = _now(time)
    rate, at, since = (float(value or 0) for value in drain)
    oldest_at = float(oldest[0][1]) if oldest else now
    seen = {text(name): int(value) for name, value in totals.items()}
    return QueueSnapshot(
        waiting=waiting,
        reserved=reserved,
        outstanding=int(held[0] or 0),
        outstanding_bytes=int(held[1] or 0),
        limit=settings.queue_limit,
        kept_limit=int(held[2]) if held[2] else None,
        limit_bytes=settings.queue_bytes,
        oldest_age_s=round(max(now - oldest_at, 0.0), 3),
        idle_s=round(max(now - max(at, oldest_at), 0.0), 3),
        drain_rate_per_s=round(drain_rate(rate, at, since, now), 3),
        workers=read_workers(workers, now),
        totals={name: seen.get(name, 0) for name in (*COUNTERS, *EVENTS)},
    )


def _now(time: Any) -> float:
    return float(time[0]) + float(time[1]) / 1e6
