"""The results as a picture: texts a second of each side, and each value beside its target."""

from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.measures import MEASURES
from tests.bench.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OURS, THEIRS, TARGET = "#2a6f97", "#a9a9a9", "#c1121f"


def draw(results: Results, path: Path) -> None:
    """A PNG. Raises ImportError where matplotlib is not installed."""
    import matplotlib as mpl

    mpl.use("Agg")  # no display
    from matplotlib import pyplot

    figure, (rates, ratios) = pyplot.subplots(1, 2, figsize=(13, 4.8), layout="constrained")
    _draw_rates(rates, results)
    _draw_ratios(ratios, results)
    machine = results.machine
    figure.suptitle(f"{machine['cores']} cores, {machine['cpu']}", fontsize=9)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _draw_rates(axes: "Axes", results: Results) -> None:
    keys = [m for m in MEASURES if m.key.startswith("ingest_") and m.key in results.measures]
    for at, measure in enumerate(reversed(keys)):
        details = results.details[measure.key]
        axes.barh(at + 0.2, details["ours"], 0.38, color=OURS)
        axes.barh(at - 0.2, details["theirs"], 0.38, color=THEIRS)
    axes.set_yticks(range(len(keys)), [measure.title for measure in reversed(keys)], fontsize=8)
    axes.set_title("texts/s to stored: ours (blue), the other (grey)", fontsize=9)


def _draw_ratios(axes: "Axes", results: Results) -> None:
    """1 is the target, to the right of it is better."""
    shown = [m for m in MEASURES if m.target is not None and m.key in results.measures]
    for at, measure in enumerate(reversed(shown)):
        value, target = results.measures[measure.key], measure.target or 1.0
        better = value / target if measure.better == "higher" else target / max(value, 1e-6)
        axes.barh(at, min(better, 3.0), 0.6, color=OURS if better >= 1 else TARGET)
        axes.text(min(better, 3.0) + 0.03, at, f"{value:.3g}", va="center", fontsize=8)
    axes.axvline(1, color=TARGET, linewidth=1)
    axes.set_xlim(0, 3.4)
    axes.set_yticks(range(len(shown)), [m.key for m in reversed(shown)], fontsize=8)
    axes.set_title("times its target (1 is reached); the number is the value", fontsize=9)
