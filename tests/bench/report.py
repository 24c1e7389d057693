"""The results as a person reads them: tables for the terminal."""

from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.measures import MEASURES, TUNING, Measure
from tests.bench.results import Results

ABSENT = "–"


def show(results: Results, console: Console) -> None:
    """All tables, and what is missing with its reason."""
    console.print(measure_table(results))
    for table in detail_tables(results):
        console.print(table)
    for key, reason in results.missing.items():
        console.print(f"[yellow]missing[/] {key}: {reason}", highlight=False)


def measure_table(results: Results) -> Table:
    """Measure, ours, baseline, the value itself, target, reached; a row for each key."""
    table = Table(title="Measures", title_justify="left")
    table.add_column("measure")
    for name in ("ours", "baseline", "value", "target"):
        table.add_column(name, justify="right")
    table.add_column("reached")
    for measure in (*MEASURES, *TUNING):
        if measure.key in results.measures or measure.key in results.missing:
            table.add_row(*measure_row(measure, results))
    return table


def measure_row(measure: Measure, results: Results) -> tuple[str, ...]:
    details = results.details.get(measure.key, {})
    value = results.measures.get(measure.key)
    return (
        measure.title,
        number(details.get("ours")),
        number(details.get("theirs")),
        number(value),
        measure.target_text,
        ABSENT if value is None else verdict(measure, value, details),
    )


def verdict(measure: Measure, value: float, details: dict[str, Any]) -> str:
    """Yes, no, or nothing to reach. Speed that costs quality is not reached; memory is lower than a
    second copy of everything."""
    reached = measure.reached(value)
    for condition in ("quality_kept", "below_second_copy"):
        if condition in details:
            reached = details[condition] and reached is not False
    return ABSENT if reached is None else "yes" if reached else "no"


def number(value: float | None) -> str:
    """Three digits that count."""
    if value is None:
        return ABSENT
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def detail_tables(results: Results) -> list[Table]:
    """Profile and variants, as far as they were taken."""
    tables = [_profile_table(results.details["profile"])] if "profile" in results.details else []
    titles = {
        "children": "Children (bare encode: as many processes)",
        "text_lengths": "Lengths of texts",
        "request_sizes": "Texts a request",
    }
    tables += [
        _variant_table(title, results.details[key])
        for key, title in titles.items()
        if key in results.details
    ]
    if "settings" in results.details:
        tables += [_effect_table(name, rows) for name, rows in results.details["settings"].items()]
    return tables


def _effect_table(name: str, rows: dict[str, dict[str, float]]) -> Table:
    table = Table(title=name.replace("_", " "), title_justify="left")
    table.add_column("")
    for column in next(iter(rows.values())):
        table.add_column(column, justify="right")
    for value, row in rows.items():
        table.add_row(value, *map(number, row.values()))
    return table


def _profile_table(profile: dict[str, Any]) -> Table:
    table = Table(title="Where a text's time goes", title_justify="left")
    for name in ("process or stage", "ms a text"):
        table.add_column(name, justify="right" if name != "process or stage" else "left")
    for role, used in profile["cpu_ms_per_text"].items():
        table.add_row(f"CPU of {role}", number(used))
    for stage, wall in profile["child_wall_ms_per_text"].items():
        table.add_row(f"a child's time: {stage}", number(wall))
    table.add_row("wall clock", number(profile["wall_ms_per_text"]))
    return table


def _variant_table(title: str, found: dict[str, Any]) -> Table:
    table = Table(title=title, title_justify="left")
    for name in ("", "ours, texts/s", "bare encode", "ratio"):
        table.add_column(name, justify="right" if name else "left")
    for name, row in found.items():
        table.add_row(name, number(row["ours"]), number(row["theirs"]), number(row["value"]))
    return table
