"""What `make audit` makes of pip-audit's report, and of none."""

import sys
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from tests import advisories

CLEAN = {"name": "a", "version": "1", "vulns": []}
SKIPPED = {"name": "b", "skip_reason": "editable"}
BAD = {"name": "c", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1"]}]}

Answers = Callable[..., None]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    def answer(*rows: object, obstacle: str | None = None, reason: str | None = None) -> None:
        report = orjson.dumps({"dependencies": rows})
        monkeypatch.setattr(advisories, "find_obstacle", lambda: obstacle)
        monkeypatch.setattr(advisories, "audit", lambda _: (report, reason))

    return answer


def test_an_advisory_fails(answers: Answers, capsys: pytest.CaptureFixture[str]) -> None:
    answers(CLEAN, SKIPPED, BAD)
    assert advisories.main() == 1
    assert capsys.readouterr().out == "c 2: PYSEC-1, mended in 2.1\n"


def test_none_does_not(answers: Answers, capsys: pytest.CaptureFixture[str]) -> None:
    answers(CLEAN, SKIPPED)
    assert advisories.main() == 0
    output = capsys.readouterr()
    assert output.out == "no known advisory\n"
    assert output.err == "1 of 2 packages are known to the service\n"


def test_a_service_that_knows_no_package_has_audited_nothing(
    answers: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    answers(SKIPPED)
    assert advisories.main() == 0
    output = capsys.readouterr()
    assert "NOT AUDITED" in output.err
    assert output.out == ""


@pytest.mark.parametrize("trouble", [{"obstacle": "no route"}, {"reason": "no route"}])
def test_a_service_that_is_away_is_said_and_fails_nothing(
    answers: Answers, capsys: pytest.CaptureFixture[str], trouble: dict[str, str]
) -> None:
    answers(BAD, **trouble)
    assert advisories.main() == 0
    assert "NOT AUDITED" in capsys.readouterr().err


def test_a_tool_without_a_report_is_no_clean_bill(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert advisories.audit(tmp_path / "report.json") == (b"", "no report")
