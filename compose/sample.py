"""What `embedmill watch` sees at one moment, and in words and JSON; only `compose` imports it."""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import orjson
import redis

from compose.plain import strip_controls
from compose.progress import format_duration
from tasks.errors import EmbedError
from tasks.presence import GpuUse
from tasks.settings import Settings
from tasks.snapshot import QueueSnapshot, read_queue
from tasks.statistics import STAGES, ChildStatistics, Statistics, read_statistics

WINDOW = 10
"""Samples over which the work of passes is taken: they are sent once a second."""
TOTALS = ("accepted", "done", "failed", "cancelled", "redelivered", "returned")


@dataclass(frozen=True, slots=True)
class Work:
    """What passes did lately: their number, each stage's share of their time, padding's share of
    the tokens. Shares are 0 to 1."""

    passes: int
    texts_per_pass: float
    shares: Mapping[str, float]
    padding_share: float


@dataclass(frozen=True, slots=True)
class Sample:
    """The queue and the processes; `at` in Unix seconds."""

    at: float
    queue: QueueSnapshot
    statistics: Statistics
    work: Work

    @property
    def limit(self) -> int:
        """That of the processes that accept; before they do, the one of the settings here."""
        return self.queue.kept_limit or self.queue.limit

    @property
    def eta_s(self) -> float | None:
        """Seconds until nothing is outstanding; None where that cannot be told."""
        if not self.queue.outstanding:
            return 0.0
        rate = self.queue.drain_rate_per_s
        return self.queue.outstanding / rate if rate else None


class Sampler:
    """Looks again and again, and remembers enough to say what passes did meanwhile."""

    def __init__(self) -> None:
        self._seen: deque[Statistics] = deque(maxlen=WINDOW + 1)

    def take(self, client: redis.Redis, settings: Settings, at: float) -> Sample:
        """Raises BrokerDown."""
        queue = read_queue(client, settings)
        statistics = read_statistics(client, settings)
        if self._seen and self._seen[-1].counters["texts"] > statistics.counters["texts"]:
            self._seen.clear()  # another Redis, or an emptied one
        self._seen.append(statistics)
        return Sample(at, queue, statistics, compare(self._seen[0], statistics))


def compare(before: Statistics, now: Statistics) -> Work:
    """What passes did between two looks at the same sums."""
    seconds = {
        name: now.histograms[name].sum - before.histograms[name].sum for name in (*STAGES, "pass")
    }
    counted = {name: count - before.counters[name] for name, count in now.counters.items()}
    passes = sum(now.histograms["pass"].counts) - sum(before.histograms["pass"].counts)
    whole_s = seconds.pop("pass")
    return Work(
        passes=max(passes, 0),
        texts_per_pass=round(counted["texts"] / passes, 1) if passes > 0 else 0.0,
        shares={name: round(_share(part, whole_s), 3) for name, part in seconds.items()},
        padding_share=round(_share(counted["padding_tokens"], counted["computed_tokens"]), 3),
    )


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


def to_json(sample: Sample | EmbedError, at: float) -> str:
    """One line; an error where Redis is away."""
    if isinstance(sample, EmbedError):
        return _dump({"at": at, "error": {"code": sample.code, "detail": sample.detail}})
    queue, totals = sample.queue, sample.queue.totals
    return _dump(
        {
            "at": sample.at,
            "waiting": queue.waiting,
            "reserved": queue.reserved,
            "outstanding": queue.outstanding,
            "limit": sample.limit,
            "outstanding_bytes": queue.outstanding_bytes,
            "oldest_age_s": queue.oldest_age_s,
            "drain_rate_per_s": queue.drain_rate_per_s,
            "eta_s": None if sample.eta_s is None else round(sample.eta_s, 1),
            **{name: totals[name] for name in TOTALS},
            "refused_requests": totals["refusals"],
            "dead_letters": sample.statistics.dead_letters,
            "workers": [
                {
                    "name": w.name,
                    "pid": w.pid,
                    "concurrency": w.concurrency,
                    "warm": w.warm,
                    "gpus": [asdict(gpu) for gpu in w.gpus],
                }
                for w in queue.workers
            ],
            "processes": [asdict(child) for child in sample.statistics.children],
            "passes": asdict(sample.work),
        }
    )


def to_line(sample: Sample | EmbedError, at: float) -> str:
    """One line of words."""
    time = format_time(at)
    if isinstance(sample, EmbedError):
        return f"{time} {strip_controls(sample.detail)}; trying again"
    return f"{time} " + "; ".join([", ".join(_words(sample)), *_processes(sample)])


def _words(sample: Sample) -> Iterator[str]:
    queue, totals = sample.queue, sample.queue.totals
    yield f"waiting {queue.waiting:,}"
    yield f"reserved {queue.reserved:,}"
    yield f"outstanding {queue.outstanding:,} of {sample.limit:,}"
    yield f"oldest {format_duration(queue.oldest_age_s)}"
    yield f"{queue.drain_rate_per_s:,.0f} texts/s"
    yield format_left(sample)
    yield f"429s {totals['refusals']:,}"
    yield f"dead letters {sample.statistics.dead_letters:,}"


def _processes(sample: Sample) -> Iterator[str]:
    for child in sample.statistics.children or ():
        yield (
            f"pid {child.pid}: batch {child.last_texts:,}, {child.texts_per_s:,.0f} texts/s, "
            f"CPU {format_share(child.cpu_share)}, {format_memory(child)}"
        )
    if not sample.statistics.children:
        yield "no process works"
    for worker in sample.queue.workers:
        for gpu in worker.gpus:
            yield f"GPU {strip_controls(gpu.name)}: {format_gpu(gpu)}"


def format_left(sample: Sample) -> str:
    """How long until all is settled."""
    if sample.eta_s is None:
        return "nothing drains"
    return f"{format_duration(sample.eta_s)} left" if sample.eta_s else "nothing left"


def format_time(at: float) -> str:
    """In this machine's time zone."""
    return datetime.fromtimestamp(at).astimezone().strftime("%H:%M:%S")


def format_share(share: float) -> str:
    return f"{share:.0%}".replace("%", " %")


def format_memory(child: ChildStatistics) -> str:
    return f"{child.rss_bytes / 1_000_000:,.0f} MB"


def format_gpu(gpu: GpuUse) -> str:
    busy = "" if gpu.utilization is None else f"{format_share(gpu.utilization)}, "
    used, size = gpu.memory_used_bytes / 1e9, gpu.memory_bytes / 1e9
    return f"{busy}{used:,.1f} of {size:,.1f} GB"


def _dump(row: dict[str, Any]) -> str:
    return orjson.dumps(row).decode()
