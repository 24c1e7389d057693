"""The same comparison under other conditions: children, lengths, request sizes, another server."""

from collections.abc import Sequence
from typing import Any

from tests.bench.baselines.infinity import infinity
from tests.bench.bench import Bench
from tests.bench.figures import pair
from tests.bench.ingest import Reference, compare, reference, take_turns, warm_up
from tests.bench.results import BenchError
from tests.bench.sides import Side, product
from tests.bench.workload import REQUEST_TEXTS, sample, texts_of_length

CHILDREN = (1, 2, 4)
LENGTHS = {"short": 10, "long": 250}
"""In tokens."""
LONG_TEXTS = 4 * REQUEST_TEXTS
REQUEST_SIZES = (1, 64, 1000)


def measure(bench: Bench) -> None:
    bench.part(lambda: _children(bench), "children")
    bench.part(lambda: _on_one_stack(bench), "text_lengths", "request_sizes")
    bench.part(lambda: _infinity(bench), "infinity")


def _children(bench: Bench) -> None:
    """Bare encode has as many processes as we have children."""
    texts = sample(bench.scale.extra_texts)
    found = {}
    for count in CHILDREN:
        with reference(count) as check, product(bench.folder, count) as stack:
            warm_up([stack.side])
            found[str(count)] = _against(check, stack.side, texts, bench)
    bench.results.details["children"] = found


def _on_one_stack(bench: Bench) -> None:
    with reference(bench.cores) as check, product(bench.folder, bench.cores) as stack:
        warm_up([stack.side])
        bench.part(lambda: _text_lengths(bench, check, stack.side), "text_lengths")
        bench.part(lambda: _request_sizes(bench, check, stack.side), "request_sizes")


def _text_lengths(bench: Bench, check: Reference, ours: Side) -> None:
    found = {}
    for name, tokens in LENGTHS.items():
        count = bench.scale.extra_texts if name == "short" else LONG_TEXTS
        texts = texts_of_length(tokens, count)
        found[name] = {"tokens": tokens, "texts": count, **_against(check, ours, texts, bench)}
    bench.results.details["text_lengths"] = found


def _request_sizes(bench: Bench, check: Reference, ours: Side) -> None:
    texts = sample(max(bench.scale.extra_texts, *REQUEST_SIZES))
    found = {}
    for size in REQUEST_SIZES:
        found[str(size)] = _against(check, ours, texts, bench, request_texts=size)
    bench.results.details["request_sizes"] = found


def _against(
    check: Reference,
    ours: Side,
    texts: Sequence[str],
    bench: Bench,
    request_texts: int = REQUEST_TEXTS,
) -> dict[str, Any]:
    scale = bench.scale
    runs = take_turns(
        [check, ours],
        texts,
        scale.extra_rounds,
        check,
        limit_s=scale.limit_s,
        request_texts=request_texts,
    )
    return compare(runs, ours.name, check.name)


def _infinity(bench: Bench) -> None:
    """It answers with vectors and stores nothing, so it does less than we do."""
    if bench.infinity_python is None:
        raise BenchError("not run: --infinity-python names no Python that has infinity-emb")
    texts = sample(bench.scale.extra_texts)
    with (
        reference(bench.cores) as check,
        product(bench.folder, bench.cores) as stack,
        infinity(bench.folder, bench.infinity_python) as other,
    ):
        warm_up([stack.side])
        other.encode(texts[:REQUEST_TEXTS])
        ours: list[float] = []
        theirs: list[float] = []
        for _ in range(bench.scale.extra_rounds):
            theirs.append(len(texts) / other.encode(texts))
            runs = take_turns([stack.side], texts, 1, check, limit_s=bench.scale.limit_s)
            ours += [run.rate for run in runs[stack.side.name]]
    bench.results.details["infinity"] = pair(ours, theirs).as_details()
