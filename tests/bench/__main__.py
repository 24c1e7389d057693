"""`python -m tests.bench`: measure, show, write bench-results.json and a picture."""

import argparse
import logging
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.console import Console

from tests.bench import (
    accept,
    chart,
    drain,
    effects,
    ingest,
    memory,
    profiling,
    queries,
    report,
    single,
    tune,
    variants,
)
from tests.bench.bench import Bench
from tests.bench.measures import EXTRAS, GROUPS, KEYS, ON_DEMAND
from tests.bench.results import Results, count_cores, describe_machine
from tests.bench.scale import FULL, QUICK

logger = logging.getLogger("tests.bench")
PARTS = (
    ingest,
    single,
    queries,
    accept,
    profiling,
    memory,
    drain,
    variants,
    effects,
    tune,
)


def main() -> int:
    options = _parse()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logger.setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, _leave)
    began_s = time.monotonic()
    scale = QUICK if options.quick else FULL
    results = Results(machine=describe_machine() | {"scale": scale.name})
    with tempfile.TemporaryDirectory(prefix="embedmill-bench-") as folder:
        bench = Bench(
            scale, Path(folder), count_cores(), results, options.only, options.infinity_python
        )
        for part in PARTS:
            part.measure(bench)
    results.machine["took_s"] = round(time.monotonic() - began_s)
    results.write(options.output)
    report.show(results, Console(width=120 if not sys.stdout.isatty() else None))
    _draw(results, options.output.with_suffix(".png"))
    return 1 if results.missing.keys() & {*KEYS, *ON_DEMAND} else 0


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    """So that what was started is stopped, as after Ctrl-C."""
    raise SystemExit(128 + number)


def _draw(results: Results, path: Path) -> None:
    try:
        chart.draw(results, path)
    except ImportError as error:
        logger.warning("no picture: %s", error)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="fewer texts and rounds, a shorter backlog"
    )
    parser.add_argument(
        "--only",
        type=_keys,
        default=frozenset(),
        metavar="KEY,...",
        help=f"of {', '.join((*KEYS, *EXTRAS, *ON_DEMAND, *GROUPS))}",
    )
    parser.add_argument(
        "--infinity-python", type=Path, help="a Python whose environment has infinity-emb"
    )
    parser.add_argument("--output", type=Path, default=Path("bench-results.json"))
    return parser.parse_args()


def _keys(value: str) -> frozenset[str]:
    keys = frozenset(key for name in value.split(",") for key in GROUPS.get(name, (name,)))
    if unknown := keys - {*KEYS, *EXTRAS, *ON_DEMAND}:
        raise argparse.ArgumentTypeError(f"no such measure: {', '.join(sorted(unknown))}")
    return keys


if __name__ == "__main__":
    sys.exit(main())
