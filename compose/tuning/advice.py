"""What follows from the measurements: settings, commands, and why. Pure."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from compose.tuning.bounds import Bound, diagnose
from compose.tuning.judging import MARGIN, Judgement, Verdict
from compose.tuning.measurements import Door, Measured
from compose.tuning.points import Axis, Point, Space
from compose.tuning.search import Comparison
from tasks.settings import Settings

WEB_WORKERS = 1
"""What `embedmill up` starts by itself."""
LARGEST_REQUEST: int = Settings.model_fields["max_request_documents"].default
NAMES = (
    *("EMBED_CONCURRENCY", "EMBED_THREADS", "EMBED_BATCH_TOKENS", "EMBED_PREFETCH_MULTIPLIER"),
    *("EMBED_WEB_WORKERS", "EMBED_QUEUE_LIMIT"),
)
"""The settings that tuning decides, all of them."""


@dataclass(frozen=True, slots=True)
class Findings:
    """All that was measured. `against_default`: the best point over the default, where they were
    compared at the end; `complete`: no comparison was left out for want of time."""

    space: Space
    best: Point
    measured: Mapping[Point, Measured]
    comparisons: Sequence[Comparison]
    against_default: Judgement | None
    door: Door | None
    complete: bool

    @property
    def default(self) -> Point:
        return self.space.default

    @property
    def unsure(self) -> list[Comparison]:
        """Those that decided nothing; a repeated measurement might."""
        return [c for c in self.comparisons if c.judgement.verdict is Verdict.UNSURE]


@dataclass(frozen=True, slots=True)
class Advice:
    """`changes` has those of `NAMES` that were decided: a value for what is not as by default, else
    an empty one. Rates in texts a second. `queue_limit` keeps waiting below `max_wait_s`."""

    point: Point
    web_workers: int
    queue_limit: int
    max_wait_s: float
    changes: Mapping[str, str]
    commands: tuple[str, str]
    reasons: Sequence[tuple[str, str]]
    rate: float
    default_rate: float

    @property
    def lines(self) -> list[str]:
        """As the settings file has them."""
        return [f"{name}={value}" for name, value in self.changes.items() if value]


def advise(found: Findings, max_wait_s: float) -> Advice:
    """The default must have been measured."""
    best = found.measured[found.best]
    web_workers = found.door.choose(best.rate) if found.door else WEB_WORKERS
    limit = limit_queue(min(best.rates or [best.rate]), max_wait_s)
    rate, default_rate = _rates(found)
    decided = found.best.changes(found.default) if found.comparisons else {}
    web = "" if web_workers == WEB_WORKERS else str(web_workers)
    return Advice(
        point=found.best,
        web_workers=web_workers,
        queue_limit=limit,
        max_wait_s=max_wait_s,
        changes={
            **decided,
            **({"EMBED_WEB_WORKERS": web} if found.door else {}),
            "EMBED_QUEUE_LIMIT": str(limit),
        },
        commands=(
            " ".join(("celery -A workers worker", *found.best.flags())),
            f"uvicorn webapp.main:app --workers {web_workers}",
        ),
        reasons=list(_reasons(found, web_workers, limit, max_wait_s)),
        rate=rate,
        default_rate=default_rate,
    )


def limit_queue(rate_per_s: float, max_wait_s: float) -> int:
    """Texts that are drained within the time, with two digits, rounded down; 1 at least."""
    texts = math.floor(rate_per_s * max_wait_s)
    unit = int(10 ** max(len(str(texts)) - 2, 0))
    return max(texts // unit * unit, 1)


def _rates(found: Findings) -> tuple[float, float]:
    """Of the best and the default; where they were compared, the ratio is that of the comparison:
    rates that were measured at different times have seen different machines."""
    best = found.measured[found.best].rate
    if found.best == found.default:
        return best, best
    if found.against_default and found.against_default.pairs:
        return best, best / found.against_default.ratio
    return best, found.measured[found.default].rate


def _reasons(
    found: Findings, web_workers: int, limit: int, max_wait_s: float
) -> Iterator[tuple[str, str]]:
    """What is recommended, and a sentence."""
    best, space = found.best, found.space
    diagnosis = diagnose(space, best, found.measured[best].last)
    yield (
        label(space, Axis.CONCURRENCY, best),
        _sentence(f"{diagnosis.bound}: {diagnosis.sentence}", found, Axis.CONCURRENCY),
    )
    for axis in (Axis.THREADS, Axis.BATCH_TOKENS, Axis.PREFETCH):
        yield label(space, axis, best), _sentence(_general(found, axis), found, axis)
    yield f"{web_workers} web worker{'s' * (web_workers > 1)}", _door_sentence(found)
    slowest = min(found.measured[best].rates or [found.measured[best].rate])
    yield (
        f"queue limit {limit:,}",
        f"so many drain within {max_wait_s:.0f} s at {slowest:,.0f} texts/s, the slowest round"
        + ("; larger requests than that are refused" if limit < LARGEST_REQUEST else ""),
    )


def _general(found: Findings, axis: Axis) -> str:
    if axis is Axis.THREADS:
        space = found.space
        return (
            "the model computes on the GPU"
            if space.gpus
            else f"{space.value(axis, found.best) * found.best.concurrency} threads for "
            f"{space.cores} core{'s' * (space.cores > 1)}"
        )
    if axis is Axis.BATCH_TOKENS:
        call = found.measured[found.best].last.tokens_per_call
        return f"a call of the model had {call:,.0f} tokens, padding included"
    return "compared with messages of one text, as one of 64 is a batch by itself"


def _sentence(beginning: str, found: Findings, axis: Axis) -> str:
    """With what was compared with it on this axis."""
    parts = list(_others(found, axis))
    return f"{beginning}; {', '.join(parts) or 'nothing else was compared'}"


def _others(found: Findings, axis: Axis) -> Iterator[str]:
    """Other values beside the recommended one, each by its last comparison."""
    best = found.space.value(axis, found.best)
    said: dict[str, str] = {}
    for comparison in (c for c in found.comparisons if c.axis is axis):
        judgement, ratio = comparison.judgement, comparison.judgement.ratio
        other = comparison.challenger
        if found.space.value(axis, other) == best:
            other, ratio = comparison.incumbent, 1 / ratio
        elif found.space.value(axis, comparison.incumbent) != best:
            continue
        name = label(found.space, axis, other)
        doubt = " (not sure)" if judgement.verdict is Verdict.UNSURE else ""
        said[name] = f"{name} is {ratio:.2f} times as fast{doubt}"
        if judgement.note:
            said[name] = f"{name} was left out, {judgement.note}"
    yield from said.values()


def _door_sentence(found: Findings) -> str:
    if found.door is None:
        return "not measured"
    drained = found.measured[found.best].rate
    rates = ", ".join(f"{found.door.rate(count):,.0f} with {count}" for count in found.door.rates)
    times = found.door.rate(min(found.door.rates)) / drained
    return (
        f"the web accepts {rates} texts/s in requests of one text; a single one {times:,.1f} times "
        "what the workers embed"
    )


def label(space: Space, axis: Axis, point: Point) -> str:
    """A point's value on an axis, in words."""
    value = space.value(axis, point)
    if axis is Axis.CONCURRENCY:
        return f"-c {value}"
    if axis is Axis.PREFETCH:
        return f"prefetch {value}"
    if axis is Axis.BATCH_TOKENS:
        return f"{value:,} tokens a call"
    return f"{value} thread{'s' * (value > 1)} each"


def remarks(found: Findings) -> list[str]:
    """What to know before believing it."""
    said = []
    if not found.complete:
        said.append("Not everything was compared: more time (--budget) or no interruption would.")
    for comparison in found.unsure:
        axis, judgement = comparison.axis, comparison.judgement
        said.append(
            f"Not sure: {label(found.space, axis, comparison.challenger)} may be "
            f"{judgement.low:.2f} to {judgement.high:.2f} times as fast as "
            f"{label(found.space, axis, comparison.incumbent)}; the simpler one stays."
        )
    last = found.measured[found.best].last
    if last.usage.other_cores > (1 - 1 / (1 + MARGIN)) * 10 * found.space.cores:
        said.append(
            f"Other programs took {last.usage.other_cores:.1f} of {found.space.cores} cores "
            "meanwhile: figures are lower than on an idle machine; measure again when it is one."
        )
    if any("MB are free" in c.judgement.note for c in found.comparisons):
        said.append(f"{Bound.MEMORY.capitalize()}: more children than fit were left out.")
    return said
