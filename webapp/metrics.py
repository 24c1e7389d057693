"""Snapshots as Prometheus' metrics. Used inside `webapp` only; `webapp.health` serves them.

All numbers come from Redis, so every web process gives the same, and what is scraped of any is the
whole. Names, help and labels are part of the interface: dashboards and alerts stand on them.
"""

from collections.abc import Iterator, Sequence

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from tasks.presence import WorkerPresence
from tasks.snapshot import COUNTERS, QueueSnapshot
from tasks.statistics import STAGES, ChildStatistics, Histogram, Statistics

PREFIX = "embedmill_"


class QueueCollector(Collector):
    """A queue snapshot as metrics."""

    def __init__(self, queue: QueueSnapshot, *, ready: bool) -> None:
        self._queue, self._ready = queue, ready

    def collect(self) -> Iterator[Metric]:
        queue = self._queue
        warm = sum(worker.warm for worker in queue.workers)
        busy_s = max((worker.busy_s for worker in queue.workers), default=0.0)
        for name, text, value in (
            ("ready", "1 when /readyz is green: the queue is consumed and moves.", self._ready),
            ("waiting_messages", "Messages in Redis' list.", queue.waiting),
            ("reserved_messages", "Messages that workers hold.", queue.reserved),
            ("outstanding_texts", "Texts accepted and not settled.", queue.outstanding),
            ("outstanding_bytes", "Their bytes.", queue.outstanding_bytes),
            ("outstanding_limit_texts", "EMBED_QUEUE_LIMIT.", queue.limit),
            ("outstanding_limit_bytes", "EMBED_QUEUE_BYTES.", queue.limit_bytes),
            ("oldest_age_seconds", "Age of the oldest open job.", queue.oldest_age_s),
            ("drain_rate_texts_per_second", "Texts settled a second.", queue.drain_rate_per_s),
            ("workers", "Workers that announce themselves.", len(queue.workers)),
            ("warm_children", "Pool children with a loaded model.", warm),
            ("busy_seconds", "How long the longest batch has run so far.", busy_s),
        ):
            yield GaugeMetricFamily(f"{PREFIX}{name}", text, value)
        for name in COUNTERS:
            unit = "points" if name == "points" else "texts"
            shown = name if name == unit else f"{name}_{unit}"
            yield _counter(shown, f"Since Redis began: {name}.", queue.totals[name])
        for shown, text, name in (
            ("refused_requests", "Requests answered with 429, or QueueFull.", "refusals"),
            ("redelivered_messages", "Messages begun again: a process was lost.", "redelivered"),
            ("returned_messages", "Messages given back: store or ledger away.", "returned"),
            ("dead_letters", "Dead letters ever written.", "dead_letters"),
        ):
            yield _counter(shown, text, queue.totals[name])
        yield from _gpus(queue.workers)


class StatisticsCollector(Collector):
    """What passes of the model cost, and each pool child, as metrics."""

    def __init__(self, statistics: Statistics) -> None:
        self._statistics = statistics

    def collect(self) -> Iterator[Metric]:
        statistics = self._statistics
        yield self._stages()
        for shown, text, name in (
            ("pass_duration_seconds", "Of a pass: claim to settle.", "pass"),
            ("queue_wait_seconds", "Of a message, from acceptance to its claim.", "queue_wait"),
            (
                "query_duration_seconds",
                "Of questions answered together: begun to answered.",
                "query",
            ),
            ("pass_texts", "Texts of a pass: the batch size.", "pass_texts"),
            ("pass_tokens", "Tokens computed in a pass, padding included.", "pass_tokens"),
        ):
            histogram = HistogramMetricFamily(f"{PREFIX}{shown}", text)
            yield _observe(histogram, (), statistics.histograms[name])
        for name, text in (
            ("embedded_texts", "Texts that went through passes, repeated ones included."),
            ("upserted_points", "Points sent to the store, repeated ones included."),
            ("model_calls", "Calls of the model."),
            ("computed_tokens", "Tokens that the model computed, padding included."),
            ("padding_tokens", "Of these, padding."),
        ):
            source = {"embedded_texts": "texts", "upserted_points": "points"}.get(name, name)
            yield _counter(name, text, statistics.counters[source])
        yield _gauge("dead_letters_kept", "Dead letters kept now.", statistics.dead_letters)
        yield _gauge("dead_letters_bytes", "Their bytes.", statistics.dead_letter_bytes)
        yield from _children(statistics.children)

    def _stages(self) -> HistogramMetricFamily:
        text = "Seconds a pass spent in a stage; upsert runs beside encode, store_wait does not."
        family = HistogramMetricFamily(f"{PREFIX}stage_duration_seconds", text, labels=["stage"])
        for stage in STAGES:
            _observe(family, (stage,), self._statistics.histograms[stage])
        return family


def _children(children: Sequence[ChildStatistics]) -> Iterator[Metric]:
    """Series that go when their process does."""
    labels = ["worker", "pid"]
    prefix = f"{PREFIX}child_"
    batch = GaugeMetricFamily(f"{prefix}last_pass_texts", "Texts of the last pass.", labels=labels)
    rate = GaugeMetricFamily(f"{prefix}texts_per_second", "Over some ten seconds.", labels=labels)
    memory = GaugeMetricFamily(f"{prefix}resident_memory_bytes", "Resident memory.", labels=labels)
    cpu = CounterMetricFamily(f"{prefix}cpu_seconds", "CPU time, user and system.", labels=labels)
    for child in children:
        own = [child.worker, str(child.pid)]
        batch.add_metric(own, child.last_texts)
        rate.add_metric(own, child.texts_per_s)
        memory.add_metric(own, child.rss_bytes)
        cpu.add_metric(own, child.cpu_s)
    yield from (batch, rate, memory, cpu)


def _gpus(workers: Sequence[WorkerPresence]) -> Iterator[Metric]:
    """As the workers that run on them see them; none where none does."""
    labels = ["worker", "gpu"]
    prefix = f"{PREFIX}gpu_"
    busy = GaugeMetricFamily(
        f"{prefix}utilization_ratio", "Time in which it computed, 0 to 1.", labels=labels
    )
    used = GaugeMetricFamily(f"{prefix}memory_used_bytes", "Memory in use.", labels=labels)
    size = GaugeMetricFamily(f"{prefix}memory_bytes", "Memory there is.", labels=labels)
    for worker, gpu in ((each, gpu) for each in workers for gpu in each.gpus):
        own = [worker.name, gpu.name]
        if gpu.utilization is not None:
            busy.add_metric(own, gpu.utilization)
        used.add_metric(own, gpu.memory_used_bytes)
        size.add_metric(own, gpu.memory_bytes)
    yield from (busy, used, size)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"{PREFIX}{name}", text, value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{PREFIX}{name}", text, value)


def _observe(
    family: HistogramMetricFamily, labels: tuple[str, ...], histogram: Histogram
) -> HistogramMetricFamily:
    family.add_metric(labels, histogram.cumulative(), histogram.sum)
    return family
