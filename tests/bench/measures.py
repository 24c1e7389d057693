"""What is measured: the keys of bench-results.json, in the table's order, with their targets."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Measure:
    """A key, what it says in words, and what it must reach; `target` None: it is only reported."""

    key: str
    title: str
    target: float | None = None
    better: Literal["higher", "lower"] = "higher"

    def reached(self, value: float) -> bool | None:
        """None where there is no target."""
        if self.target is None:
            return None
        return value >= self.target if self.better == "higher" else value <= self.target

    @property
    def target_text(self) -> str:
        if self.target is None:
            return "reported"
        return f"{'≥' if self.better == 'higher' else '≤'} {self.target:g}"


MEASURES = (
    Measure("ingest_fp32_over_raw", "ingest, torch fp32, over bare encode", 1.0),
    Measure("ingest_int8_over_raw_fp32", "ingest, int8, over bare fp32 encode", 2.0),
    Measure("ingest_over_asyncio_queue", "ingest over FastAPI + asyncio.Queue", 2.7),
    Measure("ingest_over_plain_celery", "ingest over Celery, a text a task, 1 thread", 2.0),
    Measure("ingest_over_stock_celery", "ingest over Celery, default threads", 6.0),
    Measure("single_overhead_ms_p50", "one text, idle: overhead, p50 (ms)", 15.0, "lower"),
    Measure("single_overhead_ms_p99", "one text, idle: overhead, p99 (ms)", 40.0, "lower"),
    Measure("query_overhead_ms_p50", "one query, idle: overhead, p50 (ms)", 12.0, "lower"),
    Measure("query_wait_batches_p95", "a backlog adds to a query's p95 (batches)", 2.0, "lower"),
    Measure("query_ingest_kept", "ingest beside queries, over what they leave", 0.9),
    Measure("accept_over_bare_fastapi", "accepted requests/s over bare FastAPI", 0.5),
    Measure("padding_share", "padding among tokens computed", 0.05, "lower"),
    Measure("drain_rate_200k_over_1k", "drain rate, long queue over 1,000", 0.9),
    Measure("pss_mb_per_extra_child", "memory of one more child (PSS, MB)", None, "lower"),
)
TUNING = (
    Measure("tuned_over_grid_best", "tuned settings over the best of a grid", 0.95),
    Measure("tuned_over_naive", "tuned settings over -c 8, threads a core, batch 32", 1.2),
    Measure("tuned_again", "two recommendations, the slower over the faster", 0.95),
)
"""What `--only tune` measures; it takes too long for all runs."""
KEYS = tuple(measure.key for measure in MEASURES)
ON_DEMAND = ("tune", "settings")
"""Taken when they are named, and not otherwise."""
EXTRAS = ("profile", "children", "text_lengths", "request_sizes", "infinity")
"""Parts without a key of their own: they are reported under "details"."""
GROUPS = {"queries": ("query_overhead_ms_p50", "query_wait_batches_p95", "query_ingest_kept")}
"""Names for several keys."""
