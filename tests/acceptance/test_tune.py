"""`embedmill tune` as users run it: with the fake encoder, whose calls cost what they are told."""

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from compose.process import MARK
from tests.processes import Program

EMBEDMILL = str(Path(sys.executable).parent / "embedmill")
ENV = {
    "EMBED_MODEL": "fake",
    "EMBED_FAKE_DIMENSION": "8",
    "EMBED_FAKE_TEXT_MS": "5",
    "EMBED_BROKER_URL": "",
    "EMBED_QDRANT_URL": "",
}

pytestmark = pytest.mark.slow


class Tuning:
    """Runs of the command in a folder of their own."""

    def __init__(self, root: Path) -> None:
        self.root, self.data_dir = root, root / "data"
        self.programs: list[Program] = []

    def start(self, *arguments: str, **changes: str) -> Program:
        self.programs.append(
            Program(
                [EMBEDMILL, *arguments, "--data-dir", str(self.data_dir)],
                log=self.root / f"{arguments[0]}-{len(self.programs)}.log",
                env={**ENV, **changes},
                cwd=self.root,
            )
        )
        return self.programs[-1]


@pytest.fixture
def tuning(tmp_path: Path) -> Iterator[Tuning]:
    tuning = Tuning(tmp_path)
    yield tuning
    for program in tuning.programs:
        program.stop(timeout_s=60)


def left_behind(folder: Path) -> list[str]:
    """Processes of a run on this data directory."""
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except (psutil.Error, OSError):
            continue
        if MARK in environment and str(folder) in environment.get("EMBED_DATA_DIR", ""):
            found.append(" ".join(process.cmdline()))
    return found


def test_it_measures_recommends_and_up_reads_what_it_wrote(tuning: Tuning) -> None:
    program = tuning.start("tune", "--budget", "25s", "--apply", "--json", "found.json", "--no-png")
    assert program.wait(timeout_s=110) == 0, program.output()
    found = json.loads((tuning.root / "found.json").read_text())
    assert found["points"][0]["point"]["concurrency"] == found["cores"]
    assert found["points"][0]["texts_per_s"][0] > 0
    assert found["points"][0]["memory_bytes"] > 10_000_000
    assert len(found["points"][0]["single_text_ms"]) == 7
    assert found["points"][0]["passes"]["texts_per_pass"] > 1
    assert found["recommended"]["queue_limit"] > 0
    limit = f"EMBED_QUEUE_LIMIT={found['recommended']['queue_limit']}"
    assert limit in program.output()
    assert limit in (tuning.data_dir / "embedmill.env").read_text()
    assert not left_behind(tuning.data_dir)
    assert not (tuning.data_dir / "tune" / "redis").exists()

    up = tuning.start("up", "--port", "0", "--without", "worker,web,flower")
    up.wait_until(lambda: "\nReady." in up.output(), "the stack is ready")
    assert f"settings: {tuning.data_dir / 'embedmill.env'}" in up.output()


def test_ctrl_c_ends_it_with_what_it_has(tuning: Tuning) -> None:
    program = tuning.start("tune", "--apply", "--no-png")
    program.wait_until(lambda: "(default): " in program.output(), "the default is measured")
    program.send(signal.SIGINT)
    assert program.wait(timeout_s=60) == 130, program.output()
    assert "Recommended" in program.output()
    assert "Not everything was compared" in program.output()
    assert "nothing was applied" in program.output()
    assert not (tuning.data_dir / "embedmill.env").exists()
    assert not left_behind(tuning.data_dir)


def test_a_worker_that_cannot_start_is_said_in_a_sentence(tuning: Tuning) -> None:
    program = tuning.start("tune", EMBED_MODEL="/no/such/model")
    assert program.wait(timeout_s=60) == 1
    assert "Error: EMBED_MODEL=/no/such/model is not a folder" in program.output()
    assert "Traceback" not in program.output()
