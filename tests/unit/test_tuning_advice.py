"""What follows from measurements: settings, commands, reasons, and how they are shown and kept."""

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import click
import orjson
import pytest
from click.testing import CliRunner
from rich.console import Console

from compose.cli import main, parse_duration
from compose.errors import InputError
from compose.sample import Work
from compose.tuning.advice import NAMES, Findings, advise, limit_queue, remarks
from compose.tuning.backlog import plan_window
from compose.tuning.bounds import Bound, diagnose
from compose.tuning.gpu import parse_apple, parse_nvidia
from compose.tuning.judging import Judgement, Verdict
from compose.tuning.measurements import Door, Measured, Round, Usage
from compose.tuning.picture import draw
from compose.tuning.points import Axis, Point, Space, space_of
from compose.tuning.report import show, to_json
from compose.tuning.saving import merge, save
from compose.tuning.search import Comparison
from compose.tuning.texts import SAMPLE, read_texts
from compose.tuning.usage import available_bytes
from tasks.errors import SettingsError
from tasks.settings import Settings, settings_for

SPACE = space_of(2, 0, 512)
DEFAULT, BEST, LARGE = Point(2), Point(2, batch_tokens=1024), Point(4)
GPU_SPACE = space_of(8, 1, 32768)


def round_(
    rate: float = 100.0,
    *,
    own: float = 1.9,
    others: float = 0.0,
    gpu: float | None = None,
    shares: Mapping[str, float] | None = None,
) -> Round:
    work = Work(8, 64.0, {"encode": 0.9, "store_wait": 0.01} | dict(shares or {}), 0.03)
    usage = Usage({"worker": own, "redis": 0.0}, others, gpu)
    return Round(int(rate * 4), 4.0, usage, work, 480.0, 12)


def measured(*rates: float, others: float = 0.0) -> Measured:
    rounds = [round_(rate, others=others) for rate in rates]
    return Measured(5.0, 900_000_000, [0.02, 0.03], rounds)


def findings(**changes: object) -> Findings:
    lost = Judgement(Verdict.WORSE, 0.8, 0.7, 0.9, 2)
    won = Judgement(Verdict.BETTER, 1.2, 1.1, 1.3, 3)
    plain = Findings(
        space=SPACE,
        best=BEST,
        measured={
            DEFAULT: measured(100.0, 98.0),
            LARGE: measured(80.0),
            BEST: measured(120.0, 122.0, 118.0),
        },
        comparisons=[
            Comparison(Axis.CONCURRENCY, LARGE, DEFAULT, lost),
            Comparison(Axis.BATCH_TOKENS, BEST, DEFAULT, won),
        ],
        against_default=won,
        door=Door({1: [3000.0, 3100.0], 2: [3500.0, 3400.0]}),
        complete=True,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]  # fields by name


def test_what_differs_from_the_default_is_recommended_with_a_queue_limit() -> None:
    advice = advise(findings(), 60.0)
    assert advice.lines == ["EMBED_BATCH_TOKENS=1024", "EMBED_QUEUE_LIMIT=7000"]
    assert set(advice.changes) == set(NAMES)
    assert advice.commands == (
        "celery -A workers worker -c 2 --prefetch-multiplier 64",
        "uvicorn webapp.main:app --workers 1",
    )
    assert advice.default_rate == pytest.approx(120 / 1.2)


def test_what_was_not_compared_is_left_as_it_was() -> None:
    advice = advise(findings(best=DEFAULT, comparisons=[], door=None, against_default=None), 10.0)
    assert advice.changes == {"EMBED_QUEUE_LIMIT": "980"}
    assert "larger requests" in dict(advice.reasons)["queue limit 980"]


def test_each_setting_has_a_reason_with_figures() -> None:
    reasons = dict(advise(findings(), 60.0).reasons)
    assert reasons["-c 2"].startswith("CPU-bound: 1.9 of 2 cores are busy")
    assert reasons["-c 2"].endswith("; -c 4 is 0.80 times as fast")
    assert reasons["1,024 tokens a call"].endswith("; 512 tokens a call is 0.83 times as fast")
    assert "nothing else was compared" in reasons["prefetch 64"]
    assert "3,050 with 1, 3,450 with 2" in reasons["1 web worker"]
    assert "118 texts/s" in reasons["queue limit 7,000"]


def test_names_of_settings_are_real_ones() -> None:
    assert {name.removeprefix("EMBED_").lower() for name in NAMES} <= Settings.model_fields.keys()


@pytest.mark.parametrize(
    ("rate", "wait_s", "limit"),
    [(118.4, 60, 7100), (0.5, 1, 1), (5.0, 10, 50), (99.9, 1, 99), (4_321.0, 60, 250_000)],
)
def test_the_queue_limit_is_what_drains_in_time(rate: float, wait_s: float, limit: int) -> None:
    assert limit_queue(rate, wait_s) == limit


@pytest.mark.parametrize(
    ("rates", "drained", "chosen"),
    [
        ({1: [3000.0], 2: [3500.0]}, 120.0, 1),
        ({1: [100.0], 2: [190.0], 4: [195.0]}, 500.0, 2),
        ({1: [100.0], 2: [250.0], 4: [400.0]}, 120.0, 2),
    ],
)
def test_no_more_web_workers_than_the_workers_need(
    rates: dict[int, list[float]], drained: float, chosen: int
) -> None:
    assert Door(rates).choose(drained) == chosen


@pytest.mark.parametrize(
    ("space", "point", "seen", "bound"),
    [
        (SPACE, DEFAULT, round_(), Bound.CPU),
        (SPACE, LARGE, round_(), Bound.OVERSUBSCRIBED),
        (SPACE, DEFAULT, round_(own=0.8), Bound.MODEL),
        (SPACE, DEFAULT, round_(own=0.8, others=1.2), Bound.SHARED),
        (SPACE, DEFAULT, round_(shares={"store_wait": 0.4}), Bound.STORE),
        (SPACE, DEFAULT, round_(own=0.2, others=1.8, shares={"store_wait": 0.4}), Bound.SHARED),
        (SPACE, DEFAULT, round_(shares={"claim": 0.2, "settle": 0.2}), Bound.QUEUE),
        (GPU_SPACE, Point(1), round_(gpu=0.97), Bound.GPU),
        (GPU_SPACE, Point(1), round_(gpu=0.3), Bound.MODEL),
    ],
    ids=str,
)
def test_what_holds_a_point_back(space: Space, point: Point, seen: Round, bound: Bound) -> None:
    diagnosis = diagnose(space, point, seen)
    assert diagnosis.bound is bound
    assert any(character.isdigit() for character in diagnosis.sentence)


def test_doubts_are_said() -> None:
    doubt = Judgement(Verdict.UNSURE, 1.05, 0.97, 1.13, 6)
    too_large = Judgement(Verdict.WORSE, note="it would take 9 MB, and 1 MB are free")
    said = remarks(
        findings(
            complete=False,
            comparisons=[
                Comparison(Axis.PREFETCH, Point(2, prefetch=256), DEFAULT, doubt),
                Comparison(Axis.CONCURRENCY, Point(8), DEFAULT, too_large),
            ],
            measured={DEFAULT: measured(100.0), BEST: measured(120.0, others=1.5)},
        )
    )
    assert any("Not everything was compared" in line for line in said)
    assert any("prefetch 256 may be 0.97 to 1.13 times" in line for line in said)
    assert any("Other programs took 1.5 of 2 cores" in line for line in said)
    assert any(line.startswith("Memory-bound") for line in said)
    assert not remarks(findings())


def test_the_report_shows_points_settings_and_commands() -> None:
    console = Console(file=io.StringIO(), width=140)
    found = findings()
    show(found, advise(found, 60.0), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    for wanted in ("-c 2 (default)", "0.80 (0.70–0.90)", "EMBED_BATCH_TOKENS=1024", "--workers 1"):
        assert wanted in text
    assert "1.20 times what the default gets: -c 2, 100 texts/s." in text


def test_json_is_for_machines() -> None:
    found = findings()
    row = json.loads(orjson.dumps(to_json(found, advise(found, 60.0), {"model": "m"})))
    assert row["recommended"]["settings"]["EMBED_BATCH_TOKENS"] == "1024"
    assert row["recommended"]["point"]["threads"] == 1
    assert row["default"]["texts_per_s"] == 100
    assert row["comparisons"][0]["verdict"] == "worse"
    assert row["points"][0]["bound"] == "CPU-bound"
    assert row["accept_texts_per_s"]["2"] == [3500, 3400]


def test_the_picture_is_a_png(tmp_path: Path) -> None:
    path = tmp_path / "tune.png"
    draw(findings(), path, "a machine")
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match="cannot be written"):
        draw(findings(), tmp_path / "no" / "tune.png", "a machine")


def test_settings_are_merged_into_the_file() -> None:
    text = "# mine\nEMBED_MODEL=fake\nexport EMBED_THREADS=3\nEMBED_QUEUE_LIMIT=1"
    changes = {"EMBED_THREADS": "", "EMBED_QUEUE_LIMIT": "7000", "EMBED_CONCURRENCY": "4"}
    assert merge(text, changes) == (
        "# mine\nEMBED_MODEL=fake\nEMBED_QUEUE_LIMIT=7000\nEMBED_CONCURRENCY=4\n"
    )
    assert merge(merge(text, changes), changes) == merge(text, changes)


def test_what_was_saved_is_read(tmp_path: Path) -> None:
    path = save(tmp_path / "data", advise(findings(), 60.0).changes)
    settings = settings_for(tmp_path / "data")
    assert (settings.batch_tokens, settings.queue_limit) == (1024, 7000)
    assert settings.file == path
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_settings_file_that_cannot_be_read_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "embedmill.env").write_text("EMBED_THREADS\n")
    with pytest.raises(SettingsError, match="has no value"):
        save(tmp_path, {"EMBED_THREADS": "2"})


def test_a_window_is_whole_turns_of_all_children() -> None:
    assert plan_window(128, 0.0, 4.0) == 256
    assert plan_window(128, 120.0, 4.0) == 512
    assert plan_window(128, 129.0, 4.0) == 640


def test_gpu_tools_are_read() -> None:
    assert parse_nvidia(" 97\n") == 0.97
    assert parse_nvidia("[N/A]") is None
    assert parse_apple("GPU HW active residency:  12.50% (389 MHz: 12%)") == 0.125
    assert parse_apple("GPU idle residency:  87.50%") is None


def test_a_containers_limit_counts(tmp_path: Path) -> None:
    whole = available_bytes(tmp_path)
    (tmp_path / "memory.max").write_text("1000000")
    (tmp_path / "memory.current").write_text("400000")
    assert available_bytes(tmp_path) == 600_000
    (tmp_path / "memory.max").write_text("max")
    assert available_bytes(tmp_path) > whole / 2


def test_texts_are_a_fair_sample_that_is_always_the_same(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(f'{{"text": "text {number}"}}\n' for number in range(3 * SAMPLE)))
    texts = read_texts([str(path)], Settings())
    assert len(set(texts)) == SAMPLE
    assert texts == read_texts([str(path)], Settings())
    numbers = [int(text.split()[1]) for text in texts]
    assert 0.8 < sum(numbers) / len(numbers) / (1.5 * SAMPLE) < 1.2
    assert len(read_texts([], Settings())) > 1000


@pytest.mark.parametrize(
    ("content", "said"),
    [("", "no text in "), ('{"text": " "}', ":1: "), ('{"texts": 1}', ":1: ")],
)
def test_texts_that_would_be_refused_are_named(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=said):
        read_texts([str(path)], Settings())


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5m", 90), ("1h", 3600)]
)
def test_durations_are_read(text: str, seconds: float) -> None:
    option = click.Option(["--budget"])
    assert parse_duration(click.Context(main), option, text) == seconds


def test_a_folder_that_is_not_there_is_named_before_anything_is_measured(tmp_path: Path) -> None:
    path = str(tmp_path / "no" / "found.json")
    result = CliRunner().invoke(main, ["tune", "--json", path])
    assert result.exit_code == 1
    assert f"{path} cannot be written: there is no folder" in result.output


def test_a_gpus_use_is_shown_where_it_is_known() -> None:
    measured_ = {DEFAULT: Measured(5.0, 10**9, [0.01], [round_(gpu=0.97)])}
    found = findings(space=GPU_SPACE, best=DEFAULT, measured=measured_, comparisons=[])
    console = Console(file=io.StringIO(), width=140)
    show(found, advise(found, 60.0), console)
    assert "97 %" in console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO


@pytest.mark.parametrize("arguments", [["--budget", "soon"], ["--max-wait", "0"], ["no-such-file"]])
def test_bad_arguments_are_refused(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, ["tune", *arguments])
    assert result.exit_code == 2
    assert arguments[-1] in result.output
