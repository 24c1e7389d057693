"""The benchmark's pure parts: arithmetic, stages, verdicts, tables."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.bench import effects
from tests.bench.bench import Bench
from tests.bench.figures import cosines, pair, percentile, top_overlap
from tests.bench.measures import EXTRAS, KEYS, MEASURES
from tests.bench.report import detail_tables, measure_row, number, verdict
from tests.bench.results import BenchError, Results
from tests.bench.scale import FULL, QUICK
from tests.bench.stages import IDLE, LEDGER, MODEL, STORE, TOKENIZE, name_stage
from tests.bench.workload import Work, corpus, sample

BY_KEY = {measure.key: measure for measure in MEASURES}


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    ratio = pair([10.0, 40.0, 30.0], [10.0, 20.0, 10.0])
    assert (ratio.value, ratio.lowest, ratio.highest) == (2.0, 1.0, 3.0)
    assert (ratio.ours, ratio.theirs, ratio.rounds) == (30.0, 10.0, 3)


@pytest.mark.parametrize(("ours", "theirs"), [([], []), ([1.0], [1.0, 2.0])])
def test_sides_have_the_same_rounds(ours: list[float], theirs: list[float]) -> None:
    with pytest.raises(ValueError, match=r"no rounds|shorter|longer"):
        pair(ours, theirs)


def test_percentiles() -> None:
    assert percentile(range(101), 50) == 50
    assert percentile(range(101), 99) == 99


def test_cosines_and_overlap_of_equal_vectors_are_one() -> None:
    vectors = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)
    assert cosines(vectors, 2 * vectors) == pytest.approx(1)
    assert top_overlap(vectors, 2 * vectors) == 1
    assert top_overlap(vectors, -vectors[::-1]) < 1


@pytest.mark.parametrize(
    ("calls", "stage"),
    [
        (
            [("/lib/torch/nn/functional.py", "linear"), ("/x/transformers/models/bert.py", "f")],
            MODEL,
        ),
        (
            [("/p/workers/torch_encoder.py", "count_tokens"), ("/p/workers/pipeline.py", "r")],
            TOKENIZE,
        ),
        (
            [("/lib/ssl.py", "read"), ("/x/httpx/client.py", "send"), ("/p/workers/store.py", "w")],
            STORE,
        ),
        ([("/x/redis/connection.py", "read"), ("/p/workers/execution.py", "claim")], LEDGER),
        ([("/lib/threading.py", "wait"), ("/p/workers/pipeline.py", "run")], IDLE),
        ([("/x/billiard/pool.py", "poll"), ("/x/billiard/pool.py", "workloop")], IDLE),
        ([], IDLE),
    ],
)
def test_a_stack_is_in_the_stage_nearest_to_its_inside(
    calls: list[tuple[str, str]], stage: str
) -> None:
    assert name_stage(calls) == stage


def test_targets() -> None:
    assert BY_KEY["ingest_fp32_over_raw"].reached(1.0)
    assert not BY_KEY["padding_share"].reached(0.06)
    assert BY_KEY["pss_mb_per_extra_child"].reached(100) is None


def test_speed_that_costs_quality_does_not_count() -> None:
    measure = BY_KEY["ingest_int8_over_raw_fp32"]
    assert verdict(measure, 3.0, {"quality_kept": True}) == "yes"
    assert verdict(measure, 3.0, {"quality_kept": False}) == "no"
    assert verdict(measure, 1.0, {"quality_kept": True}) == "no"


def test_a_row_shows_both_sides_and_a_missing_one_dashes() -> None:
    results = Results()
    results.record("ingest_fp32_over_raw", 1.234, {"ours": 123.4, "theirs": 100.0})
    results.miss("padding_share", "nothing was seen")
    shown = measure_row(BY_KEY["ingest_fp32_over_raw"], results)
    assert shown[1:] == ("123", "100", "1.23", "≥ 1", "yes")
    assert measure_row(BY_KEY["padding_share"], results)[1:4] == ("–", "–", "–")


def test_numbers_have_three_digits_that_count() -> None:
    assert [number(value) for value in (None, 1234.5, 12.34, 0.01234)] == [
        "–",
        "1,234",
        "12.3",
        "0.0123",
    ]


def test_the_file_has_what_it_promises(tmp_path: Path) -> None:
    results = Results(machine={"cores": 2})
    results.record("padding_share", 0.05, {"calls": 3})
    results.miss("accept_over_bare_fastapi", "no web")
    results.write(tmp_path / "bench-results.json")
    found = json.loads((tmp_path / "bench-results.json").read_text())
    assert found == {
        "machine": {"cores": 2},
        "measures": {"padding_share": 0.05},
        "missing": {"accept_over_bare_fastapi": "no web"},
        "details": {"padding_share": {"calls": 3}},
    }


def test_variants_become_tables() -> None:
    results = Results()
    row = {"ours": 2.0, "theirs": 1.0, "value": 2.0}
    results.details["children"] = {"1": row, "2": row}
    (table,) = detail_tables(results)
    assert table.row_count == 2


def test_effects_of_settings_become_tables() -> None:
    results = Results()
    row = {"texts_per_s": 2.0, "short_s": 0.5}
    results.details["settings"] = {"prefetch": {"1": row, "64": row}, "children": {"1": row}}
    assert [table.row_count for table in detail_tables(results)] == [2, 1]


def test_effects_of_settings_are_measured_only_when_they_are_named(tmp_path: Path) -> None:
    results = Results()
    effects.measure(Bench(FULL, tmp_path, 2, results))
    assert not results.details
    assert not results.missing


def test_a_part_that_fails_is_missing_and_the_next_one_is_measured(tmp_path: Path) -> None:
    bench = Bench(QUICK, tmp_path, 2, Results())

    def fail() -> None:
        raise BenchError("no such thing here")

    bench.part(fail, "padding_share")
    bench.part(lambda: bench.results.record("drain_rate_200k_over_1k", 1.0, {}), KEYS[9])
    assert bench.results.missing == {"padding_share": "no such thing here"}
    assert bench.results.measures == {"drain_rate_200k_over_1k": 1.0}


def test_only_what_is_wanted_is_measured(tmp_path: Path) -> None:
    quick, full = (Bench(scale, tmp_path, 2, Results()) for scale in (QUICK, FULL))
    assert all(quick.wants(key) for key in KEYS)
    assert [key for key in EXTRAS if quick.wants(key)] == ["profile"]
    assert all(full.wants(key) for key in EXTRAS)
    one = Bench(FULL, tmp_path, 2, Results(), only=frozenset({"padding_share"}))
    assert [key for key in (*KEYS, *EXTRAS) if one.wants(key)] == ["padding_share"]


def test_the_texts_are_distinct_and_always_in_the_same_order() -> None:
    texts = corpus()
    assert len(set(texts)) == len(texts) > 1000
    assert sample(3) == texts[:3]
    assert [len(request) for request in Work("c", texts[:150]).requests()] == [64, 64, 22]
