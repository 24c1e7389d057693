"""Documents that are rewritten and deleted again and again while what works on them is killed."""

import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random, SystemRandom

import httpx
import pytest

from tests.acceptance.chaos.books import Books
from tests.acceptance.chaos.parcels import WORDS, Parcel, Sheet
from tests.acceptance.chaos.senders import TIMEOUT_S, Receipt
from tests.acceptance.chaos.stack import Stack, whole_stack
from tests.acceptance.chaos.storm import Storm, Victim, plan_strikes
from tests.acceptance.chaos.test_chaos import calm
from tests.processes import wait_until

IDS, ROUNDS = 200, 10
KILLS = {Victim.CHILD: 6, Victim.WORKER: 3}
DELETED, REPEATED, LONG = 0.2, 0.3, 0.05


@dataclass(frozen=True, slots=True)
class Order:
    """Documents to write, or to delete."""

    parcel: Parcel
    deletes: bool


@dataclass
class Writer(threading.Thread):
    """Posts orders one after the other, each until it is accepted, so that their order is that of
    their acceptance."""

    url: str
    collection: str
    orders: Sequence[Order]
    receipts: list[Receipt] = field(default_factory=list)
    deletions: list[Receipt] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        with httpx.Client(base_url=self.url, timeout=TIMEOUT_S) as client:
            for order in self.orders:
                receipt = Receipt(self._post(client, order), order.parcel)
                (self.deletions if order.deletes else self.receipts).append(receipt)

    def _post(self, client: httpx.Client, order: Order) -> str:
        while not self.stopped.is_set():
            answer = self._send(client, order)
            if answer.status_code == httpx.codes.ACCEPTED:
                return str(answer.json()["job_id"])
            assert answer.status_code in {429, 503}, answer.text
            self.stopped.wait(0.1)
        raise AssertionError("stopped before all was accepted")

    def _send(self, client: httpx.Client, order: Order) -> httpx.Response:
        if not order.deletes:
            return client.post("/embed", json={"documents": [one.row() for one in order.parcel]})
        path = f"/collections/{self.collection}/documents"
        if len(order.parcel) == 1:
            return client.delete(f"{path}/{order.parcel[0].id}")
        return client.post(f"{path}/delete", json={"ids": [one.id for one in order.parcel]})


def plan_orders(chance: Random) -> Iterator[Order]:
    """Each id in each round, in random order and company; some texts are those of the round before
    and some have several chunks."""
    texts = dict.fromkeys(range(IDS), "")
    for round_ in range(ROUNDS):
        left = chance.sample(range(IDS), IDS)
        while left:
            some, left = left[: (size := chance.choice([1, 1, 1, 3, 10, 30]))], left[size:]
            for number in some:
                if not texts[number] or chance.random() >= REPEATED:
                    texts[number] = write_text(number, round_, chance)
            parcel = tuple(Sheet(f"sheet-{number}", texts[number]) for number in some)
            yield Order(parcel, deletes=chance.random() < DELETED)


def write_text(number: int, round_: int, chance: Random) -> str:
    length = 600 if chance.random() < LONG else chance.randint(3, 40)
    return f"Sheet {number}, round {round_}: {' '.join(chance.choices(WORDS, k=length))}."


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_each_document_ends_as_it_was_accepted_last(tmp_path: Path) -> None:
    seed = int(os.environ.get("CHAOS_SEED") or SystemRandom().randrange(10**6))
    print(f"CHAOS_SEED={seed}")
    chance = Random(seed)
    with whole_stack(tmp_path) as stack:
        writer = Writer(stack.web.url, stack.settings.collection, list(plan_orders(chance)))
        storm = Storm(stack, chance)
        writer.start()
        storm.rage(plan_strikes(KILLS, IDS * ROUNDS, chance), timeout_s=200)
        wait_until(lambda: storm.watch() and not writer.is_alive(), "all is accepted", timeout_s=60)
        calm(stack, storm)
        books = Books(stack, writer.receipts)
        gone = forget_deleted(books, writer.deletions)
        print(f"kills: {storm.kills}, {books.messages} messages, delivered {books.deliveries()}")
        print(f"{len(gone)} of {IDS} deleted in the end; unchanged: {unchanged(stack)}")
        stack.wait_for_orphans()
        assert len(books.promises) + len(gone) == IDS
        differences = books.differences()
        assert not differences, "\n".join(differences)


def forget_deleted(books: Books, deletions: Sequence[Receipt]) -> set[str]:
    """Nothing is promised of what was deleted last; which documents that are."""
    gone = set()
    for deletion in deletions:
        for entry in books.rosters[deletion.job_id].entries:
            promise = books.promises.get(entry.id)
            if promise is None or promise.sequence < entry.sequence:
                gone.add(entry.id)
    for name in gone:
        books.promises.pop(name, None)
    return gone


def unchanged(stack: Stack) -> int:
    return int(stack.redis.client.hget("embedmill:totals", "unchanged") or 0)
