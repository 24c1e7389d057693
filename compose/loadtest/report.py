"""What a load test has found: as a table, as JSON, and in a line while it runs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from compose.loadtest.lag import Generator
from compose.loadtest.latencies import Latencies
from compose.loadtest.settling import Settling
from compose.loadtest.tally import Tally
from compose.plain import strip_controls
from compose.sample import format_share

PERCENTILES = (50, 90, 95, 99)
CLOSED = (
    "Each client waits for its answer before it asks again, so a web that stalls is asked less "
    "often: these are the latencies of so many clients, not of arrivals at a rate (--rate)."
)
OPEN = "Latencies count from when a request was due, not from when it was sent."
SLOW = (
    "The load generator itself was too slow: latencies include its own. Ask for less, or run it on "
    "another machine."
)


@dataclass(frozen=True, slots=True)
class Report:
    """`plan` is what was asked for, `seconds` how long requests were sent and waited for."""

    plan: Mapping[str, Any]
    seconds: float
    tally: Tally
    generator: Generator
    settling: Settling | None

    @property
    def succeeded(self) -> bool:
        """Something was answered, and nothing ended in an error."""
        failed_texts = self.settling.failed_texts if self.settling else 0
        return bool(self.tally.answered) and not self.tally.failed and not failed_texts

    @property
    def answered_per_s(self) -> float:
        return self.tally.answered / self.seconds if self.seconds else 0.0

    def latencies(self) -> Iterator[tuple[str, Latencies]]:
        """By name, as far as there are any."""
        yield "answer", self.tally.answer
        if self.tally.refused:
            yield "accepted", self.tally.acceptance
        if self.settling:
            yield "settled", self.settling.latencies

    def to_json(self) -> str:
        """One line."""
        tally, settling = self.tally, self.settling
        names = ("answered", "refused", "given_up", "late", "unsent", "unfinished")
        row = {
            **self.plan,
            "seconds": round(self.seconds, 3),
            **{name: getattr(tally, name) for name in names},
            "errors": dict(tally.errors),
            "answered_per_s": round(self.answered_per_s, 3),
            "texts_per_s": round(self.answered_per_s * tally.request_texts, 3),
            "latency_ms": {name: _in_ms(found) for name, found in self.latencies()},
            "settling": settling
            and {
                "failed_texts": settling.failed_texts,
                "unsettled": settling.unsettled,
                "unknown": settling.unknown,
            },
            "generator": {
                "cpu_share": round(self.generator.cpu_share, 3),
                "lag_ms": _in_ms(self.generator.lateness),
                "too_slow": self.generator.too_slow,
            },
        }
        return orjson.dumps(row).decode()

    def draw(self) -> RenderableType:
        """For people."""
        return Group(self._table(), *(Text(line) for line in self._lines()))

    def _table(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        table.add_column("latency, ms")
        for name in ("count", *(f"p{percent}" for percent in PERCENTILES), "max"):
            table.add_column(name, justify="right")
        for name, found in self.latencies():
            values = (_format_ms(value) for value in _in_ms(found).values())
            table.add_row(name, f"{found.count:,}", *values)
        return table

    def _lines(self) -> Iterator[str]:
        tally = self.tally
        yield ""
        rate = self.answered_per_s
        yield (
            f"{tally.answered:,} requests answered in {self.seconds:.1f} s: {rate:,.1f} a second, "
            f"{rate * tally.request_texts:,.1f} texts/s"
        )
        if tally.refused:
            yield f"429s {tally.refused:,}; requests never accepted {tally.given_up:,}"
        for code, count in tally.errors.most_common():
            yield f"errors {count:,}: {strip_controls(code)}"
        yield from self._endings()
        yield OPEN if "rate" in self.plan else CLOSED
        lag = _in_ms(self.generator.lateness)
        yield (
            f"This generator: {format_share(self.generator.cpu_share)} of a core, woke up "
            f"{_format_ms(lag['p99'])} ms late (p99), {_format_ms(lag['max'])} ms at most"
        )
        if self.generator.too_slow:
            yield SLOW

    def _endings(self) -> Iterator[str]:
        """What makes percentiles less than the whole truth."""
        tally = self.tally
        if tally.late:
            yield f"sent later than they were due: {tally.late:,}"
        if tally.unsent + tally.unfinished:
            yield (
                f"not sent before the end {tally.unsent:,}, not answered {tally.unfinished:,}: "
                "they count with the time until then, and would have taken longer"
            )
        if self.settling and self.settling.unsettled + self.settling.unknown:
            yield (
                f"jobs not settled at the end {self.settling.unsettled:,}, "
                f"unknown {self.settling.unknown:,}: they are not among the settled"
            )
        if self.settling and self.settling.failed_texts:
            yield f"texts that failed: {self.settling.failed_texts:,}"


def describe_progress(tally: Tally, passed_s: float, duration_s: float, unsettled: int) -> str:
    """A line while it runs; `unsettled` jobs are still followed."""
    parts = [f"{min(passed_s, duration_s):.0f} of {duration_s:g} s", f"answered {tally.answered:,}"]
    parts.append(f"p50 {_format_ms(tally.answer.percentile(50) * 1000)} ms")
    parts.append(f"p99 {_format_ms(tally.answer.percentile(99) * 1000)} ms")
    parts += [f"429s {tally.refused:,}"] if tally.refused else []
    parts += [f"errors {tally.failed:,}"] if tally.failed else []
    parts += [f"jobs to be settled {unsettled:,}"] if unsettled else []
    return ", ".join(parts)


def _in_ms(found: Latencies) -> dict[str, float]:
    named = {f"p{percent}": found.percentile(percent) for percent in PERCENTILES}
    return {name: round(value * 1000, 3) for name, value in (named | {"max": found.max_s}).items()}


def _format_ms(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}"
