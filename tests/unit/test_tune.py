"""The verb `embedmill tune` on a private stack of paper: what it keeps when something breaks."""

import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from compose import tune as tune_module
from compose.cli import main
from compose.errors import ServiceDied, StackError
from compose.interruption import Interruption
from compose.output import Output
from compose.service import Service
from compose.tuning import duels as duels_module
from compose.tuning import ground as ground_module
from compose.tuning.ground import QUEUE_BYTES, private_ground, queue_bytes
from compose.tuning.measurements import Door
from compose.tuning.mill import Mill, Worker
from compose.tuning.points import Point
from compose.tuning.sizes import Sizes
from tasks.settings import MIB, Settings
from tests.unit.test_tuning_duels import SPACE, PaperDoor, PaperMill, faster_with_four

SETTINGS_FILE = "embedmill.env"
GIB = 1024 * MIB


class BrokenDoor(PaperDoor):
    def measure(
        self, counts: Sequence[int], *, seconds: float, may_go_on: Callable[[], bool]
    ) -> Door:
        raise StackError("the web answered 503: no")


@pytest.fixture
def tune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs the verb with a mill and a door, `--apply` and files in a folder of its own."""
    (tmp_path / "texts.txt").write_text("a text\nanother one\n")
    monkeypatch.setenv("EMBED_MODEL", "fake")
    monkeypatch.setattr(duels_module, "available_bytes", lambda: 10**12)

    def run(mill: PaperMill, door: type[PaperDoor] = PaperDoor, *arguments: str) -> Result:
        @contextmanager
        def ground(*_arguments: object) -> Iterator[SimpleNamespace]:
            yield SimpleNamespace(space=SPACE, mill=mill, door=door)

        monkeypatch.setattr(tune_module, "private_ground", ground)
        where = ["--data-dir", str(tmp_path), "--apply", *(arguments or ["--no-png"])]
        return CliRunner().invoke(main, ["tune", str(tmp_path / "texts.txt"), *where])

    return run


def test_what_breaks_late_leaves_what_was_found_and_applies_nothing(
    tune: Callable[..., Result], tmp_path: Path
) -> None:
    def die(number: int, _point: Point) -> None:
        if number > 8:
            raise ServiceDied("redis (pid 7) ended by itself")

    mill = PaperMill(faster_with_four, die)
    mill.check = lambda: die(9, Point(1))  # type: ignore[method-assign]  # Redis stays dead
    found = tmp_path / "found.json"
    result = tune(mill, PaperDoor, "--no-png", "--json", str(found))
    assert result.exit_code == 1
    assert "Recommended" in result.stdout
    assert "nothing was applied" in result.stdout
    assert "Error: redis (pid 7) ended by itself" in result.stderr
    assert found.exists()
    assert not (tmp_path / SETTINGS_FILE).exists()


def test_what_breaks_before_anything_was_found_is_the_error(tune: Callable[..., Result]) -> None:
    def die(_number: int, _point: Point) -> None:
        raise ServiceDied("redis (pid 7) ended by itself")

    result = tune(PaperMill(faster_with_four, die))
    assert result.exit_code == 1
    assert result.stderr.endswith("Error: redis (pid 7) ended by itself\n")
    assert "Recommended" not in result.stdout


def test_a_web_that_cannot_be_measured_is_said_and_the_rest_counts(
    tune: Callable[..., Result], tmp_path: Path
) -> None:
    result = tune(PaperMill(faster_with_four), BrokenDoor)
    assert result.exit_code == 0, result.output
    assert "how much the web accepts could not be measured: the web answered 503" in result.output
    assert "EMBED_CONCURRENCY=4" in (tmp_path / SETTINGS_FILE).read_text()


def test_a_picture_that_cannot_be_written_does_not_cost_what_is_applied(
    tune: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise ValueError("Format 'png' is not supported")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", refuse)
    picture = tmp_path / "tune.png"
    result = tune(PaperMill(faster_with_four), PaperDoor, "--png", str(picture))
    assert result.exit_code == 1
    assert f"Error: {picture} cannot be written: Format 'png'" in result.stderr
    assert "EMBED_CONCURRENCY=4" in (tmp_path / SETTINGS_FILE).read_text()


@pytest.mark.parametrize("name", ["tune.xyz", "tune"])
def test_a_picture_of_an_unknown_kind_is_refused_before_measuring(
    tune: Callable[..., Result], tmp_path: Path, name: str
) -> None:
    mill = PaperMill(faster_with_four)
    result = tune(mill, PaperDoor, "--png", str(tmp_path / name))
    assert result.exit_code == 1
    assert "is no picture that can be drawn: .png, .svg, .pdf" in result.stderr
    assert not mill.measured


@pytest.mark.parametrize("option", ["--png", "--json"])
def test_a_folder_that_is_read_only_is_refused_before_measuring(
    tune: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    allowed = os.access

    def access(path: Path, mode: int) -> bool:
        return not (path == tmp_path and mode & os.W_OK) and allowed(path, mode)

    monkeypatch.setattr(os, "access", access)
    mill = PaperMill(faster_with_four)
    result = tune(mill, PaperDoor, option, str(tmp_path / "tune.png"))
    assert result.exit_code == 1
    assert "cannot be written: it is not allowed" in result.stderr
    assert not mill.measured


def test_texts_in_the_queue_are_counted_from_the_samples_beginning() -> None:
    sizes = Sizes(["a" * 100, "b" * 300])
    first, both = sizes.bytes_of(1), sizes.bytes_of(2)
    assert 100 < first < 160
    assert sizes.bytes_of(5) == 2 * both + first
    assert [sizes.count_within(2 * both + more) for more in (-1, 0, first)] == [3, 4, 5]


def test_long_texts_make_small_passes() -> None:
    settings = Settings(model="fake")
    assert Sizes(["short"]).pass_texts(settings, gpus=0) == 64
    assert Sizes(["short"]).pass_texts(settings, gpus=1) == 1024
    assert Sizes(["x" * 50_000]).pass_texts(settings, gpus=0) == 5
    assert Sizes(["x" * 50_000]).pass_texts(settings, gpus=1) == 10
    assert Sizes(["x" * MIB]).pass_texts(settings, gpus=0) == 1


def test_the_private_queue_has_room_for_the_most_children(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ground_module, "available_bytes", lambda: 64 * GIB)
    settings, space = Settings(model="fake"), SimpleNamespace(children=(1, 256), gpus=0)
    long = ["x" * MIB]
    room = queue_bytes(settings, long, space)  # type: ignore[arg-type]  # all that it reads
    assert room > 4 * 256 * MIB
    assert Sizes(long).fit_window(256, 10**6, room) == 2 * 256
    assert queue_bytes(settings, ["short"], SPACE) == QUEUE_BYTES
    monkeypatch.setattr(ground_module, "available_bytes", lambda: 4 * GIB)
    room = queue_bytes(settings, long, space)  # type: ignore[arg-type]  # all that it reads
    assert room == GIB // 2


def test_the_private_servers_get_that_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Settings] = []

    def refuse(_options: object, *, settings: Settings, **_others: object) -> None:
        given.append(settings)
        raise StackError("no stack")

    monkeypatch.setattr(ground_module, "Stack", refuse)
    monkeypatch.setattr(ground_module, "queue_bytes", lambda *_arguments: 3 * GIB)
    place = private_ground(
        Settings(model="fake"), ["a"], tmp_path, Output(io.StringIO()), Interruption()
    )
    with pytest.raises(StackError, match="no stack"), place:
        pass
    assert given[0].queue_bytes == 3 * GIB


def test_a_round_that_the_queue_cannot_hold_is_refused_in_a_sentence() -> None:
    settings = Settings(model="fake", queue_bytes=MIB, broker_url="redis://127.0.0.1:1/0")
    mill = Mill(None, settings, {}, ["x" * MIB], None, gpus=0)  # type: ignore[arg-type]  # unused
    worker = Worker(Point(2), "w", 1, Service(name="worker", probe=lambda _pid: ""))
    with closing(mill), pytest.raises(StackError, match="8 texts that one round needs take 8 MB"):
        mill.measure(worker, seconds=1.0, limit_s=1.0)


def test_a_window_is_cut_to_what_the_queue_holds() -> None:
    sizes = Sizes(["x" * 1000])
    assert sizes.fit_window(64, 640, MIB) == 640
    assert sizes.fit_window(64, 64_000, MIB) == 64 * 13
    with pytest.raises(StackError, match="the 4,096 texts that one round needs take 4 MB"):
        sizes.fit_window(1024, 2048, MIB)
