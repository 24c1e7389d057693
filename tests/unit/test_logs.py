"""Log lines as JSON: one object a line, with the ids of what it is about."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from tasks.logs import batch, format_logs
from tasks.settings import Settings


class Log:
    """A logger whose lines can be read."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        self.logger = logging.Logger("a.logger")
        self.logger.addHandler(logging.StreamHandler(self.stream))

    def row(self) -> dict[str, Any]:
        [line] = self.stream.getvalue().splitlines()
        found: dict[str, Any] = json.loads(line)
        return found


@pytest.fixture
def log() -> Iterator[Log]:
    log = Log()
    format_logs(Settings(log_format="json"), log.logger)
    yield log
    log.stream.close()


def test_a_line_says_when_who_and_what(log: Log) -> None:
    log.logger.warning("%d texts\nwait", 3, extra={"job_id": "j", "task_id": "t"})
    row = log.row()
    assert row["message"] == "3 texts\nwait"
    assert (row["level"], row["logger"], row["job_id"], row["task_id"]) == (
        "WARNING",
        "a.logger",
        "j",
        "t",
    )
    assert row["time"].endswith("+00:00")


def test_lines_of_a_batch_share_its_id(log: Log) -> None:
    with batch("b1"):
        log.logger.info("inside")
    assert log.row()["batch_id"] == "b1"


def test_a_task_s_id_comes_from_celery_s_own_lines(log: Log) -> None:
    log.logger.info("Task succeeded", extra={"data": {"id": "t7", "name": "tasks.embed"}})
    assert log.row()["task_id"] == "t7"


def test_without_ids_there_are_none_and_a_traceback_stays_one_line(log: Log) -> None:
    try:
        raise ValueError("bad")
    except ValueError:
        log.logger.exception("it failed")
    row = log.row()
    assert "ValueError: bad" in row["error"]
    assert not {"job_id", "task_id", "batch_id"} & row.keys()


def test_by_default_lines_are_for_people() -> None:
    log = Log()
    format_logs(Settings(), log.logger)
    log.logger.warning("as it is")
    assert log.stream.getvalue() == "as it is\n"
