"""The findings on a terminal and as JSON. Only `compose.tune` imports it."""

from collections.abc import Iterator
from dataclasses import asdict
from statistics import median
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from compose.tuning.advice import Advice, Findings, remarks
from compose.tuning.bounds import diagnose
from compose.tuning.judging import Judgement
from compose.tuning.measurements import Measured
from compose.tuning.points import Axis, Point

SINGLE = "¹"


def show(found: Findings, advice: Advice, console: Console) -> None:
    """A table of points, the settings, the commands and the reasons."""
    console.print(_table(found))
    console.print("pass: texts that a child takes at once; call: tokens of a model call")
    if any(one.single_rounds and not one.rounds for one in found.measured.values()):
        console.print(f"{SINGLE} with a message for each text, as from requests of one text")
    console.print(f"\n[bold]Recommended[/]  {advice.point}", highlight=False)
    for line in (_compare_with_default(found, advice), "", *advice.lines, ""):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for command in advice.commands:
        console.print(f"  {command}", markup=False, highlight=False, soft_wrap=True)
    console.print()
    reasons = Table(box=None, show_header=False, pad_edge=False)
    reasons.add_column(no_wrap=True)
    reasons.add_column()
    for what, why in advice.reasons:
        reasons.add_row(f"[bold]{what}[/]", why)
    console.print(reasons)
    for remark in remarks(found):
        console.print(f"[yellow]{remark}[/]", highlight=False)


def to_json(found: Findings, advice: Advice, about: dict[str, Any]) -> dict[str, Any]:
    """For programs; rates in texts a second."""
    return {
        **about,
        "complete": found.complete,
        "sure": not found.unsure,
        "recommended": {
            "settings": dict(advice.changes),
            "point": _point(found, advice.point),
            "web_workers": advice.web_workers,
            "queue_limit": advice.queue_limit,
            "max_wait_s": advice.max_wait_s,
            "commands": list(advice.commands),
            "reasons": dict(advice.reasons),
            "texts_per_s": round(advice.rate, 2),
        },
        "default": {
            "point": _point(found, found.default),
            "texts_per_s": round(advice.default_rate, 2),
            "comparison": _judgement(found.against_default),
        },
        "points": [_measured(found, point, one) for point, one in found.measured.items()],
        "comparisons": [
            {
                "axis": str(c.axis),
                "challenger": _point(found, c.challenger),
                "incumbent": _point(found, c.incumbent),
                **_judgement(c.judgement),
            }
            for c in found.comparisons
        ],
        "accept_texts_per_s": _door(found),
        "remarks": remarks(found),
    }


def _table(found: Findings) -> Table:
    table = Table(title="Measured, in this order", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("settings", no_wrap=True)
    for name in ("texts/s", "beside the best", "1 text", "memory", "cores", "pass", "call"):
        table.add_column(name, justify="right", no_wrap=True)
    has_gpu = any(_gpu(one) for one in found.measured.values())
    if has_gpu:
        table.add_column("GPU", justify="right", no_wrap=True)
    table.add_column("held back by", no_wrap=True)
    for point, one in found.measured.items():
        if one.rounds or one.single_rounds:
            style = "bold green" if point == found.best else ""
            bound = diagnose(found.space, point, one.last).bound
            gpu = [_gpu(one)] if has_gpu else []
            table.add_row(*_cells(found, point, one), *gpu, bound, style=style)
    return table


def _cells(found: Findings, point: Point, one: Measured) -> Iterator[str]:
    yield f"{point}{' (default)' if point == found.default else ''}"
    yield f"{one.rate:,.0f}{'' if one.rounds else SINGLE}"
    yield _compared(found, point)
    yield f"{_latency_ms(one):,.0f} ms" if one.latencies_s else ""
    yield f"{one.memory_bytes / 1e9:.1f} GB"
    yield f"{one.last.usage.own_cores:.1f}"
    yield f"{one.last.work.texts_per_pass:,.0f}"
    yield f"{one.last.tokens_per_call:,.0f}"


def _gpu(one: Measured) -> str:
    share = one.last.usage.gpu if one.rounds or one.single_rounds else None
    return "" if share is None else f"{share:.0%}".replace("%", " %")


def _compared(found: Findings, point: Point) -> str:
    """With the best point of that time."""
    for comparison in reversed(found.comparisons):
        judgement = comparison.judgement
        if comparison.challenger == point and judgement.pairs:
            return f"{judgement.ratio:.2f} ({judgement.low:.2f}–{judgement.high:.2f})"
    return ""


def _compare_with_default(found: Findings, advice: Advice) -> str:
    if not found.comparisons:
        return f"Only the default was measured: {advice.rate:,.0f} texts/s."
    if found.best == found.default:
        return f"The default settings are the best found: {advice.rate:,.0f} texts/s."
    return (
        f"{advice.rate:,.0f} texts/s, {advice.rate / advice.default_rate:.2f} times what the "
        f"default gets: {found.default}, {advice.default_rate:,.0f} texts/s."
    )


def _latency_ms(one: Measured) -> float:
    return 1000 * median(one.latencies_s)


def _point(found: Findings, point: Point) -> dict[str, int]:
    return {str(axis): found.space.value(axis, point) for axis in Axis}


def _door(found: Findings) -> dict[str, list[float]]:
    """By the number of web processes."""
    rates = found.door.rates if found.door else {}
    return {str(count): [round(rate, 1) for rate in rows] for count, rows in rates.items()}


def _judgement(judgement: Judgement | None) -> dict[str, Any]:
    if judgement is None:
        return {}
    row: dict[str, Any] = {"verdict": str(judgement.verdict), "note": judgement.note}
    if not judgement.pairs:
        return row
    numbers = {"ratio": judgement.ratio, "low": judgement.low, "high": judgement.high}
    rounded = {name: round(number, 4) for name, number in numbers.items()}
    return {**row, **rounded, "pairs": judgement.pairs}


def _measured(found: Findings, point: Point, one: Measured) -> dict[str, Any]:
    row: dict[str, Any] = {
        "point": _point(found, point),
        "texts_per_s": [round(r.rate, 2) for r in one.rounds],
        "texts_per_s_single_messages": [round(r.rate, 2) for r in one.single_rounds],
        "single_text_ms": [round(1000 * s, 2) for s in one.latencies_s],
        "memory_bytes": one.memory_bytes,
        "start_s": round(one.start_s, 2),
    }
    if not one.rounds and not one.single_rounds:
        return row
    diagnosis = diagnose(found.space, point, one.last)
    return row | {
        "bound": str(diagnosis.bound),
        "diagnosis": diagnosis.sentence,
        "cores": dict(one.last.usage.cores),
        "other_cores": one.last.usage.other_cores,
        "gpu_share": one.last.usage.gpu,
        "queued_messages": one.last.queued,
        "tokens_per_call": one.last.tokens_per_call,
        "passes": asdict(one.last.work),
    }
