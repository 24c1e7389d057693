"""The findings as a PNG: a panel for each axis that was varied. Only `compose.tune` imports it."""

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from compose.errors import InputError
from compose.tuning.advice import Findings
from compose.tuning.points import Axis, Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BEST, OTHER, LINE = "#2a6f97", "#a9a9a9", "#c1121f"
TITLES = {
    Axis.CONCURRENCY: "pool children (-c)",
    Axis.BATCH_TOKENS: "tokens a model call",
    Axis.THREADS: "threads a child",
    Axis.PREFETCH: "prefetch, messages of one text",
}


def draw(found: Findings, path: Path, title: str) -> None:
    """Raises ImportError without matplotlib, InputError when it cannot be written."""
    import matplotlib as mpl

    mpl.use("Agg")  # no display
    from matplotlib import pyplot

    axes = [axis for axis in Axis if any(c.axis is axis for c in found.comparisons)]
    count = max(1, len(axes) + bool(found.door))
    figure, grid = pyplot.subplots(
        1, count, figsize=(3.4 * count + 0.6, 3.6), layout="constrained", squeeze=False
    )
    panels = list(grid[0])
    for panel, axis in zip(panels, axes, strict=False):
        _draw_axis(panel, found, axis)
    if found.door:
        _draw_door(panels[-1], found)
    panels[0].set_ylabel("texts/s")
    figure.suptitle(title, fontsize=9)
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError, RuntimeError) as error:  # of matplotlib, or of what encodes for it
        cause = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be written: {cause}") from error
    finally:
        pyplot.close(figure)


def _draw_axis(panel: "Axes", found: Findings, axis: Axis) -> None:
    """Medians, with the slowest and the fastest round as whiskers."""
    shown = _points(found, axis)
    value = found.space.value(axis, found.best)
    for at, point in enumerate(shown):
        rates = _rates(found, axis, point)
        middle = median(rates)
        is_best = found.space.value(axis, point) == value
        panel.bar(at, middle, 0.6, color=BEST if is_best else OTHER)
        whiskers = [[middle - min(rates)], [max(rates) - middle]]
        panel.errorbar(at, middle, yerr=whiskers, color="black", capsize=3, linewidth=1)
    names = [f"{found.space.value(axis, point):,}" for point in shown]
    panel.set_xticks(range(len(shown)), names, fontsize=8)
    panel.set_title(TITLES[axis], fontsize=9)


def _points(found: Findings, axis: Axis) -> list[Point]:
    """One for each value, by rising value: the best, and of the others what was compared last."""
    own = [c for c in found.comparisons if c.axis is axis]
    compared = [point for c in own for point in (c.incumbent, c.challenger)]
    by_value = {
        found.space.value(axis, point): point
        for point in (*compared, found.best)
        if _rates(found, axis, point)
    }
    return [by_value[value] for value in sorted(by_value)]


def _draw_door(panel: "Axes", found: Findings) -> None:
    """What the web accepts, and how much of it the workers take."""
    assert found.door is not None
    counts = list(found.door.rates)
    drained = found.measured[found.best].rate
    chosen = found.door.choose(drained)
    for at, count in enumerate(counts):
        panel.bar(at, found.door.rate(count), 0.6, color=BEST if count == chosen else OTHER)
    panel.axhline(drained, color=LINE, linewidth=1)
    panel.text(
        len(counts) - 0.6, drained, "embedded", color=LINE, fontsize=8, va="bottom", ha="right"
    )
    panel.set_xticks(range(len(counts)), [str(count) for count in counts], fontsize=8)
    panel.set_title("accepted by web workers", fontsize=9)


def _rates(found: Findings, axis: Axis, point: Point) -> list[float]:
    one = found.measured.get(point)
    if one is None:
        return []
    return [r.rate for r in (one.single_rounds if axis is Axis.PREFETCH else one.rounds)]
