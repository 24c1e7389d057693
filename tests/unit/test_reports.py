"""Children's reports reach the main process whole, and hurt nobody when it is not there."""

import multiprocessing
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.messages import ModelCard
from workers.reports import Report, ReportReader, send_report

CARD = ModelCard("a-model", 384, 256, "cpu")


@pytest.fixture
def reader() -> Iterator[ReportReader]:
    reader = ReportReader(os.getpid())
    yield reader
    reader.close()


def test_a_report_arrives(reader: ReportReader) -> None:
    send_report(os.getpid(), Report(7, CARD))
    send_report(os.getpid(), Report(8, error="no weights"))
    assert reader.read() == [Report(7, CARD), Report(8, error="no weights")]
    assert reader.read() == []


def test_reports_of_many_processes_do_not_mix(reader: ReportReader) -> None:
    context = multiprocessing.get_context("spawn")
    children = [
        context.Process(target=send_report, args=(os.getpid(), Report(number, error="x" * 400)))
        for number in range(4)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert sorted(report.pid for report in reader.read()) == [0, 1, 2, 3]


def test_a_long_sentence_is_cut_so_that_the_line_stays_whole(reader: ReportReader) -> None:
    send_report(os.getpid(), Report(7, error="가" * 100_000))
    [report] = reader.read()
    assert report.error.startswith("가가가")


def test_without_a_main_process_nothing_happens() -> None:
    send_report(2**22 + 1, Report(7, CARD))


def test_a_stale_pipe_of_an_earlier_process_is_replaced() -> None:
    first, second = ReportReader(os.getpid()), ReportReader(os.getpid())
    send_report(os.getpid(), Report(7, CARD))
    assert second.read() == [Report(7, CARD)]
    second.close()
    first.close()


def test_pipes_of_killed_workers_are_cleared_away() -> None:
    killed = multiprocessing.get_context("spawn").Process(target=int)
    killed.start()
    killed.join(60)
    assert killed.pid is not None
    left = ReportReader(killed.pid)
    path = Path(tempfile.gettempdir()) / f"embedmill-{os.geteuid()}-{killed.pid}.reports"
    assert path.exists()
    ReportReader(os.getpid()).close()
    assert not path.exists()
    left.close()
