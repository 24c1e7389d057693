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
    Measure("accept_over_bare_fastapi", "accepted requests/s over bare FastAPI", 0.5),
    Measure("padding_share", "padding among tokens computed", 0.05, "lower"),
    Measure("drain_rate_200k_over_1k", "drain rate, long queue over 1,000", 0.9),
    Measure("pss_mb_per_extra_child", "memory of one more child (PSS, MB)", None, "lower"),
)
KEYS = tuple(measure.key for measure in MEASURES)
EXTRAS = ("profile", "children", "text_lengths", "request_sizes", "infinity")
"""Parts without a key of their own: they are reported under "details"."""
ON_REQUEST = ("settings",)
"""Taken when they are named, and not otherwise."""
