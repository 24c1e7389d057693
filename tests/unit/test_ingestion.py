"""A run from items to settled jobs, with a stand-in for the web."""

import io
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import pytest
from rich.console import Console

from compose import following
from compose.errors import IngestStopped, InputError, WebRefused
from compose.ingest import Ingestion, Options
from compose.items import Item, make_item
from compose.journal import Journal
from compose.progress import make_display
from compose.web_client import WebClient
from webapp.schemas import Accepted


class StandIn(WebClient):
    """Accepts everything but the text `refused`."""

    def __init__(self) -> None:
        super().__init__("http://stand-in")
        self._numbers = count(1)

    def embed(self, documents: Sequence[bytes], options: dict[str, str], key: str) -> Accepted:
        if any(b"refused" in document for document in documents):
            raise WebRefused("no such collection", status=422)
        ids = [str(number) for number, _ in enumerate(documents)]
        return Accepted(job_id=f"job-{next(self._numbers)}", document_ids=ids, accepted=len(ids))


@pytest.fixture
def web() -> Iterator[StandIn]:
    with StandIn() as web:
        yield web


def ingestion(web: StandIn, journal: Journal | None = None) -> Ingestion:
    display = make_display(Console(file=io.StringIO()))
    return Ingestion(web, Options(batch=2, wait=False), display, journal=journal)


def items(number: int) -> Iterator[Item]:
    return (make_item(f"a.txt:{line}", {"text": f"text {line}"}) for line in range(1, number + 1))


def with_a_bad_line() -> Iterator[Item]:
    yield from items(9)
    raise InputError("a.txt:10: not JSON")


def with_a_refused_one() -> Iterator[Item]:
    yield from items(8)
    yield from (make_item("a.txt:9", {"text": f"refused {number}"}) for number in range(2))


def test_without_waiting_jobs_are_counted_and_not_held(
    web: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would be held until the end, with a place for each document."""
    monkeypatch.delattr(following, "OpenJob")
    run = ingestion(web)
    run.run(items(40))
    assert (run.tally.jobs, run.tally.accepted) == (20, 40)
    assert "To follow the last: embedmill job job-" in run.describe_accepted()


def test_after_a_bad_line_it_says_to_mend_it(web: StandIn, tmp_path: Path) -> None:
    """`--resume` would stop at the same line, and does not know the mended file."""
    with pytest.raises(IngestStopped) as caught:
        ingestion(web, Journal(tmp_path / "journal.json")).run(with_a_bad_line())
    assert caught.value.detail.startswith("a.txt:10: not JSON\nAccepted and left to the workers: ")
    assert "mend it and run again; what is stored already is not embedded" in caught.value.detail
    assert "--resume" not in caught.value.detail


def test_after_what_may_pass_it_says_how_to_go_on(web: StandIn, tmp_path: Path) -> None:
    with pytest.raises(IngestStopped) as caught:
        ingestion(web, Journal(tmp_path / "journal.json")).run(with_a_refused_one())
    assert caught.value.detail.endswith("To send the rest: the same command with --resume")
