"""Who may still write a document: exact in every way that a document can go, and bounded."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tasks.broker import text
from tasks.claims import Claim
from tasks.ledger import Ledger, Submission, run
from tasks.letters import discard_letters, purge_letters, read_letters, write_letter
from tasks.messages import Coordinates, Document, Options, Outcome, PlacedDocument
from tasks.settings import Settings
from tests.redis_server import RedisServer

PENDING = "embedmill:pending"


class Desk:
    """Accepts, claims and settles documents of one message each job."""

    def __init__(self, broker: RedisServer, settings: Settings) -> None:
        self.client, self.settings, self.ledger = broker.client, settings, Ledger(settings)
        self.ids: dict[str, list[str]] = {}

    def accept(self, job: str, *documents: str, collection: str = "c") -> None:
        """Each as `id=content`."""
        ids, contents = zip(*(document.split("=") for document in documents), strict=True)
        self.ids[job] = list(ids)
        run(self.client, self.ledger.accept(self.submission(job, contents, collection)))

    def submission(self, job: str, contents: tuple[str, ...], collection: str) -> Submission:
        ids = self.ids[job]
        return Submission(
            job, ids, [1] * len(ids), [b"m"], collection, "chunk", "embed", contents=contents
        )

    def claim(self, job: str) -> Claim:
        ids = self.ids[job]
        place = Coordinates(v=1, job=job, start=0, count=len(ids))
        return run(self.client, self.ledger.claim(place, ids))

    def uncontested(self, job: str) -> set[str]:
        return {self.ids[job][index] for index in self.claim(job).uncontested}

    def settle(self, job: str, state: str = "done", *, named: bool = True) -> None:
        outcomes = [
            Outcome(index, name if named else "", state)  # type: ignore[arg-type]
            for index, name in enumerate(self.ids[job])
        ]
        run(self.client, self.ledger.settle(job, outcomes))

    def bury(self, job: str) -> None:
        """Its documents fail, and are dead letters."""
        outcomes = [Outcome(n, name, "failed", code="x") for n, name in enumerate(self.ids[job])]
        letters = {
            outcome.index: write_letter(
                job,
                PlacedDocument(outcome.index, 1, Document(outcome.id, "text")),
                Options("c"),
                outcome,
            )
            for outcome in outcomes
        }
        run(self.client, self.ledger.settle(job, outcomes, letters))

    def pending(self) -> dict[str, str]:
        found = self.client.hgetall(PENDING)
        return {text(name).replace("\0", "/"): text(value) for name, value in found.items()}


@pytest.fixture
def desk(broker: RedisServer, settings: Settings) -> Desk:
    return Desk(broker, settings)


def test_a_document_alone_is_uncontested(desk: Desk) -> None:
    desk.accept("j", "a=1", "b=1")
    assert desk.uncontested("j") == {"a", "b"}
    desk.settle("j")
    assert desk.pending() == {}


def test_another_content_on_its_way_contests_it_until_all_are_settled(desk: Desk) -> None:
    desk.accept("other", "b=9")  # keeps the queue from being empty
    desk.accept("older", "a=1")
    desk.accept("newer", "a=2")
    assert desk.uncontested("older") == desk.uncontested("newer") == set()
    desk.settle("older")
    assert desk.uncontested("newer") == set()
    desk.settle("newer")
    desk.accept("last", "a=2")
    assert desk.uncontested("last") == {"a"}


def test_the_same_content_on_its_way_contests_nothing(desk: Desk) -> None:
    desk.accept("older", "a=1", "a=1")
    desk.accept("newer", "a=1")
    assert desk.pending() == {"c/a": "3 1"}
    assert desk.uncontested("newer") == {"a"}
    desk.settle("older")
    assert desk.pending() == {"c/a": "1 1"}
    assert desk.uncontested("newer") == {"a"}


def test_another_collection_is_another_document(desk: Desk) -> None:
    desk.accept("j", "a=1")
    desk.accept("k", "a=2", collection="d")
    assert desk.uncontested("j") == desk.uncontested("k") == {"a"}


def test_a_dead_letter_contests_until_it_is_replayed_and_settled(desk: Desk) -> None:
    desk.accept("failed", "a=1")
    desk.bury("failed")
    assert desk.pending() == {"c/a": "1 1"}
    desk.accept("newer", "a=2")
    assert desk.uncontested("newer") == set()
    desk.settle("newer")
    assert desk.pending() == {"c/a": "1 *"}
    (letter,) = read_letters(desk.client, desk.settings)
    desk.ids["again"] = ["a"]
    again = desk.submission("again", ("1",), "c")
    again = replace(again, letters=[letter.id], numbers=[letter.sequence])
    run(desk.client, desk.ledger.accept(again))
    assert desk.pending() == {"c/a": "1 *"}
    desk.settle("again")
    assert desk.pending() == {}


@pytest.mark.parametrize("every", [True, False])
def test_a_letter_that_is_purged_contests_no_more(desk: Desk, every: bool) -> None:
    desk.accept("other", "b=9")
    desk.accept("failed", "a=1", "c=1")
    desk.bury("failed")
    letters = list(read_letters(desk.client, desk.settings))
    settings = desk.settings
    run(desk.client, purge_letters(settings) if every else discard_letters(settings, letters))
    assert desk.pending() == {"c/b": "1 9"}


def test_a_letter_that_makes_room_contests_no_more(broker: RedisServer, settings: Settings) -> None:
    desk = Desk(broker, settings.model_copy(update={"dead_letters": 2}))
    desk.accept("failed", *(f"{name}=1" for name in "abc"))
    desk.bury("failed")
    assert set(desk.pending()) == {"c/b", "c/c"}


def test_whatever_ends_a_document_counts(desk: Desk) -> None:
    desk.accept("other", "z=9")
    ends: dict[str, Callable[[], object]] = {
        "cancelled": lambda: run(desk.client, desk.ledger.cancel("cancelled")),
        "dropped": lambda: desk.settle("dropped", "cancelled", named=False),
        "failed": lambda: desk.settle("failed", "failed"),
    }
    for job, end in ends.items():
        desk.accept(job, "a=1", "안녕/%2F=1")
        end()
        desk.settle(job)  # what is settled does not count twice
        assert desk.pending() == {"c/z": "1 9"}, job


def test_a_job_of_an_earlier_version_is_not_counted_and_not_uncontested(desk: Desk) -> None:
    desk.accept("old", "a=1")
    desk.client.hdel("embedmill:job:old", "counted")
    desk.client.delete(PENDING)
    desk.accept("new", "a=1")
    assert desk.uncontested("old") == set()
    desk.settle("old")
    assert desk.pending() == {"c/a": "1 1"}


def test_what_an_earlier_version_has_settled_goes_with_the_last_document(desk: Desk) -> None:
    desk.accept("j", "a=1")
    desk.client.hset(PENDING, "c\0b", "1 1")
    desk.settle("j")
    assert desk.pending() == {}


def test_unchanged_documents_are_done_and_counted(desk: Desk) -> None:
    desk.accept("j", "a=1", "b=1")
    outcomes = [Outcome(0, "a", "done", unchanged=True), Outcome(1, "b", "done", points=1)]
    run(desk.client, desk.ledger.settle("j", outcomes))
    counts = desk.client.hmget("embedmill:job:j", "done", "unchanged", "points")
    assert [int(count or 0) for count in counts] == [2, 1, 1]
    assert int(desk.client.hget("embedmill:totals", "unchanged") or 0) == 1
    assert desk.claim("j").done == 2
