"""Sending batches and following jobs, with a stand-in for the web."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Lock

import orjson
import pytest

from compose.errors import InputError, WebRefused
from compose.following import Follower
from compose.items import Item, make_item
from compose.journal import Journal
from compose.patience import Patience
from compose.sending import REQUESTS_IN_FLIGHT, Sender
from compose.web_client import WebClient
from tasks.errors import JobNotFound
from webapp.schemas import Accepted, DocumentError, JobOut


class StandIn(WebClient):
    """Answers requests when `gate` is open; at most `largest` documents each."""

    def __init__(self, *, largest: int = 1000) -> None:
        super().__init__("http://stand-in")
        self.gate = Event()
        self.largest = largest
        self.started: list[list[str]] = []
        self.jobs: dict[str, JobOut] = {}
        self._lock = Lock()

    def embed(self, documents: Sequence[bytes], options: dict[str, str], key: str) -> Accepted:
        texts = [orjson.loads(document)["text"] for document in documents]
        with self._lock:
            self.started.append(texts)
            number = len(self.started)
        assert self.gate.wait(30)
        if "bad" in texts:
            raise WebRefused("is bad", status=422, index=texts.index("bad"))
        if len(texts) > self.largest:
            raise WebRefused("too many", status=413)
        return Accepted(job_id=str(number), document_ids=texts, accepted=len(texts))

    def job(self, job_id: str) -> JobOut:
        if job_id not in self.jobs:
            raise JobNotFound("no such job")
        return self.jobs[job_id]


@pytest.fixture
def web() -> Iterator[StandIn]:
    with StandIn() as web:
        yield web


@contextmanager
def sender(web: StandIn, tick: Callable[[], None]) -> Iterator[Sender]:
    stop = Event()
    patience = Patience(stop, lambda _: None)
    with Sender(web, patience, {}, key=Journal().key, stop=stop, tick=tick) as sending:
        yield sending


def item(text: str, own_id: str | None = None) -> Item:
    return make_item(f"place of {text}", {"text": text, "id": own_id})


def send_all(sending: Sender, *batches: list[Item]) -> None:
    for batch in batches:
        sending.send(batch)
    sending.finish()


def accepted(sending: Sender) -> list[str]:
    return sorted(text for receipt, _ in sending.take_accepted() for text in receipt.document_ids)


def test_an_id_is_not_sent_again_before_it_has_been_accepted(web: StandIn) -> None:
    seen: list[int] = []

    def tick() -> None:
        seen.append(len(web.started))
        web.gate.set()

    with sender(web, tick) as sending:
        sending.send([item("first", "a")])
        sending.send([item("second", "a")])
        sending.finish()
    assert seen[0] == 1
    assert web.started == [["first"], ["second"]]


def test_nor_is_a_text_without_an_id(web: StandIn) -> None:
    """Its metadata may be another one."""
    seen: list[int] = []

    def tick() -> None:
        seen.append(len(web.started))
        web.gate.set()

    with sender(web, tick) as sending:
        sending.send([item("same")])
        sending.send([item("same"), item("other")])
        sending.finish()
    assert seen[0] == 1
    assert web.started == [["same"], ["same", "other"]]


def test_only_a_few_requests_are_in_flight(web: StandIn) -> None:
    seen: list[int] = []

    def tick() -> None:
        seen.append(len(web.started))
        web.gate.set()

    with sender(web, tick) as sending:
        for number in range(20):
            sending.send([item(str(number))])
        sending.finish()
        assert len(accepted(sending)) == 20
    assert seen[0] == REQUESTS_IN_FLIGHT


def test_what_is_too_large_is_halved_until_it_fits(web: StandIn) -> None:
    web.largest = 3
    web.gate.set()
    with sender(web, lambda: None) as sending:
        sending.send([item(str(number)) for number in range(8)])
        sending.finish()
        assert accepted(sending) == [str(number) for number in range(8)]
    assert [len(texts) for texts in web.started] == [8, 4, 2, 2, 4, 2, 2]


def test_a_single_document_that_is_too_large_is_named(web: StandIn) -> None:
    web.largest = 0
    web.gate.set()
    with sender(web, lambda: None) as sending:
        with pytest.raises(InputError, match=r"^place of long: too many$"):
            send_all(sending, [item("long")])


def test_a_refused_document_is_named_and_its_neighbours_are_still_counted(web: StandIn) -> None:
    web.gate.set()
    with sender(web, lambda: None) as sending:
        with pytest.raises(InputError, match=r"^place of bad: is bad$"):
            send_all(sending, [item("fine")], [item("good"), item("bad")])
    assert accepted(sending) == ["fine"]


def job(job_id: str, state: str, **counts: int) -> JobOut:
    numbers = dict.fromkeys(("done", "failed", "cancelled", "truncated", "points"), 0) | counts
    return JobOut.model_validate(
        {
            "job_id": job_id,
            "state": state,
            "collection": "c",
            "model": "m",
            "accepted": 2,
            **numbers,
            "rate_per_s": 0,
            "eta_s": None,
            "created_at": 0,
            "settled_at": None,
            "errors": [],
        }
    )


def follow(web: StandIn, *job_ids: str) -> Follower:
    follower = Follower(web, Patience(Event(), lambda _: None))
    for job_id in job_ids:
        receipt = Accepted(job_id=job_id, document_ids=["1", "2"], accepted=2)
        follower.add(receipt, [item(f"{job_id}/1"), item(f"{job_id}/2")])
    return follower


def test_settled_jobs_are_tallied_and_open_ones_counted_meanwhile(web: StandIn) -> None:
    failure = DocumentError(index=1, id="x", code="text_too_long", detail="too long")
    settled = job("1", "done", done=1, failed=1, points=3, chunked=1, unchanged=1)
    web.jobs = {
        "1": settled.model_copy(update={"errors": [failure]}),
        "2": job("2", "open", done=1),
    }
    follower = follow(web, "1", "2")
    follower.look()
    assert (follower.done, follower.settled, follower.any_open) == (2, 3, True)
    assert [(f.place, f.code) for f in follower.tally.failures] == [
        ("place of 1/2", "text_too_long")
    ]
    web.jobs["2"] = job("2", "cancelled", done=1, cancelled=1)
    follower.look()
    assert not follower.any_open
    assert (follower.tally.done, follower.tally.cancelled, follower.tally.points) == (2, 1, 3)
    assert (follower.tally.chunked, follower.tally.unchanged) == (1, 1)
    assert follower.settled == follower.tally.accepted == 4


def test_a_job_that_is_known_no_more_is_lost_and_said_so(web: StandIn) -> None:
    web.jobs = {"2": job("2", "abandoned")}
    follower = follow(web, "1", "2")
    follower.look()
    assert (follower.tally.lost, follower.any_open) == (4, False)
    assert follower.tally.failures[0].code == "job_not_found"


def test_later_jobs_are_looked_at_when_the_first_take_long(web: StandIn) -> None:
    web.jobs = {"1": job("1", "open"), "2": job("2", "done", done=2), "3": job("3", "open")}
    follower = follow(web, "1", "2", "3")
    follower.look()
    assert follower.done == 2
    web.jobs = {"1": job("1", "done", done=2), "3": job("3", "done", done=2)}
    follower.look()
    assert (follower.done, follower.any_open) == (6, False)
