"""Where a text's time goes, by process and by a child's stages, and the share of padded tokens.

A run of its own with an instrumented worker, so that looking does not slow down what is timed.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from tests.bench.bench import Bench
from tests.bench.ingest import cpu_ms_per_text
from tests.bench.results import BenchError
from tests.bench.sides import Run, product
from tests.bench.workload import Work, sample

PADDING = "padding_share"
PROFILE = "profile"
FOLDER = "BENCH_PROFILE_FOLDER"


def measure(bench: Bench) -> None:
    bench.part(lambda: _measure(bench), PADDING, PROFILE)


def _measure(bench: Bench) -> None:
    folder = bench.folder / "profile"
    folder.mkdir()
    texts = sample(bench.scale.profile_texts)
    app = "tests.bench.profiled_workers"
    with product(bench.folder, bench.cores, app=app, **{FOLDER: str(folder)}) as stack:
        run = stack.side.ingest(Work("profile", texts))
    children = _read(folder, bench.cores)
    _record_padding(bench, children)
    _record_profile(bench, run, children)


def _read(folder: Path, expected: int) -> list[dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    if len(found) != expected:
        raise BenchError(f"{len(found)} of {expected} children said what they saw")
    return found


def _record_padding(bench: Bench, children: list[dict[str, Any]]) -> None:
    total = {name: sum(child[name] for child in children) for name in ("calls", "real", "computed")}
    if not total["calls"]:
        bench.results.miss(PADDING, "no call of the model was seen")
        return
    share = 1 - total["real"] / total["computed"]
    bench.results.record(PADDING, share, total)


def _record_profile(bench: Bench, run: Run, children: list[dict[str, Any]]) -> None:
    stages: Counter[str] = Counter()
    for child in children:
        stages.update(child["seconds"])
    bench.results.details[PROFILE] = {
        "texts": run.texts,
        "wall_ms_per_text": round(1000 * run.seconds / run.texts, 3),
        "cpu_ms_per_text": cpu_ms_per_text([run]),
        "child_wall_ms_per_text": {
            stage: round(1000 * seconds / run.texts, 3) for stage, seconds in stages.most_common()
        },
    }
