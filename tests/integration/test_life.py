"""The life of a document: whatever comes late, twice, in any order, cut off or in the middle of
another, the last thing that was accepted of it is what stands in the store.

A real ledger, the real way of a message, the fake encoder, and a store in memory whose calls are
moments at which something else may happen.
"""

from collections.abc import Iterator
from random import Random

import pytest

from tasks.admission import ledger
from tasks.ledger import run
from tasks.messages import Outcome
from tasks.roster import read_roster
from tasks.settings import Settings
from tests.mill import COLLECTION, LONG, REFUSED, Killed, Memory, Mill
from tests.redis_server import RedisServer
from workers import process
from workers.execution import Delivery
from workers.fake import FakeEncoder
from workers.process import Resources
from workers.upserts import Point


@pytest.fixture
def store(broker: RedisServer) -> Iterator[Memory]:
    memory = Memory()
    before = process._slot
    encoder = FakeEncoder(Settings(model="fake", fake_dimension=4))
    process._slot = Resources(encoder, memory, memory, 512)  # type: ignore[arg-type]
    yield memory
    process._slot = before


@pytest.fixture
def mill(store: Memory, settings: Settings) -> Mill:
    return Mill(store, settings)


def test_a_deleted_document_goes_with_all_its_chunks(mill: Mill) -> None:
    mill.deliver(mill.write(("a", LONG), ("b", "stays")))
    mill.deliver(deletion := mill.delete("a", "never was"))
    assert mill.store.texts() == {"b": "stays"}
    job = mill.job(deletion).progress()
    assert (job.state, job.done, job.failed, job.points) == ("done", 2, 0, 0)


def test_a_text_that_was_accepted_before_loses_whenever_it_comes(mill: Mill) -> None:
    late = mill.write(("a", "late text"))
    mill.deliver(mill.delete("a"))
    mill.deliver(late)
    assert mill.store.points == {}
    assert mill.store.writes == 0
    assert mill.job(late).progress().done == 1


def test_a_text_that_is_accepted_after_it_wins_whenever_the_deletion_comes(mill: Mill) -> None:
    mill.deliver(mill.write(("a", "old text")))
    deletion = mill.delete("a")
    mill.deliver(mill.write(("a", "new text")))
    assert mill.store.texts() == {"a": "new text"}
    mill.deliver(deletion)
    assert mill.store.texts() == {"a": "new text"}


@pytest.mark.parametrize("before", [True, False])
def test_a_deletion_in_the_middle_of_a_write_wins(mill: Mill, before: bool) -> None:
    writing, deletion = mill.write(("a", "a text"), ("b", "another")), mill.delete("a")
    moments = iter([before, not before])

    def meanwhile() -> None:
        if next(moments, False):
            mill.store.moment = lambda: None
            mill.deliver(deletion)

    mill.store.moment = meanwhile
    mill.deliver(writing)
    assert mill.store.texts() == {"b": "another"}
    assert mill.job(writing).progress().done == 2


def test_a_write_in_the_middle_of_a_deletion_loses(mill: Mill) -> None:
    writing, deletion = mill.write(("a", "a text")), mill.delete("a")

    def meanwhile() -> None:
        mill.store.moment = lambda: None
        mill.deliver(writing)

    mill.store.moment = meanwhile
    mill.deliver(deletion)
    assert mill.store.points == {}


def kill_at(store: Memory, moment: int) -> None:
    """The process ends at the so manieth moment from now."""
    left = iter(range(moment))

    def meanwhile() -> None:
        if next(left, None) is None:
            store.moment = lambda: None
            raise Killed

    store.moment = meanwhile


def test_what_a_killed_write_has_left_goes_when_it_comes_again(mill: Mill) -> None:
    writing, deletion = mill.write(("a", "a text")), mill.delete("a")
    mill.deliver(deletion)
    claimed = ledger().claim(writing.place)  # it was claimed before the deletion was
    assert run(mill.client, claimed).indices == (0,)
    stale = Point("p", [], stored("a", sequence=1))  # type: ignore[arg-type]
    mill.store.points["p"] = stale
    kill_at(mill.store, 0)
    with pytest.raises(Killed):
        mill.deliver(writing)
    mill.deliver(writing)
    assert mill.store.points == {}
    assert mill.job(writing).progress().done == 1


def stored(name: str, sequence: int) -> dict[str, object]:
    names = {"document_id": name, "sequence": sequence, "chunk": 0, "chunks": 1}
    return {**names, "text": "x", "fingerprint": ""}


def test_a_writer_that_was_thought_lost_removes_what_it_writes(mill: Mill) -> None:
    """Its message ran elsewhere, was settled, and the document was deleted since."""
    writing = mill.write(("a", "a text"))

    def meanwhile() -> None:
        mill.store.moment = lambda: None
        mill.deliver(writing)
        mill.deliver(mill.delete("a"))

    mill.store.moment = meanwhile
    mill.deliver(writing)
    assert mill.store.points == {}
    assert mill.job(writing).progress().done == 1


def test_a_dead_letter_does_not_bring_back_what_was_deleted(mill: Mill) -> None:
    mill.store.strict = True
    mill.deliver(mill.write(("a", f"{REFUSED} text")))
    mill.deliver(mill.delete("a"))
    mill.store.strict = False
    (again,) = mill.replay()
    mill.deliver(again)
    assert mill.store.points == {}
    assert mill.job(again).progress().done == 1


def test_what_fails_after_it_was_deleted_leaves_nothing(mill: Mill) -> None:
    """No point, and no dead letter that could bring it back. Some of it may have been written."""
    writing, deletion = mill.write(("a", f"{REFUSED} text")), mill.delete("a")
    run(mill.client, ledger().claim(writing.place))
    mill.deliver(deletion)
    failed = [Outcome(0, "a", "failed", code="time_limit")]
    call = ledger().settle_written(writing.job_id, failed, {0: b"a letter"}, [0])
    sequence = read_roster(mill.client, deletion.job_id, mill.settings).entries[0].sequence
    assert run(mill.client, call) == {0: sequence}
    assert mill.job(writing).progress().state == "open"
    mill.deliver(writing)
    assert mill.job(writing).progress().done == 1
    assert mill.replay() == []


def test_a_deletion_waits_for_an_absent_store_and_cannot_be_cancelled_then(mill: Mill) -> None:
    mill.deliver(mill.write(("a", "a text")))
    late, deletion = mill.write(("a", "late text")), mill.delete("a")
    mill.store.away = True
    mill.deliver(deletion)
    assert mill.job(deletion).cancel() == 0
    mill.deliver(late)
    mill.store.away = False
    mill.deliver(late)
    assert mill.store.points == {}
    mill.deliver(deletion)
    assert mill.job(deletion).progress().done == 1


def test_a_deletion_that_is_cancelled_before_it_begins_deletes_nothing(mill: Mill) -> None:
    mill.deliver(mill.write(("a", "a text")))
    late, deletion = mill.write(("a", "late text")), mill.delete("a")
    assert mill.job(deletion).cancel() == 1
    mill.deliver(deletion)
    mill.deliver(late)
    assert mill.store.texts() == {"a": "late text"}


def test_the_ledger_forgets_deletions_that_nobody_may_contest(
    mill: Mill, broker: RedisServer
) -> None:
    late, deletion = mill.write(("a", "late text")), mill.delete("a", "b")
    mill.deliver(deletion)
    assert broker.client.hlen("embedmill:deleted") == 2
    assert broker.client.zcard("embedmill:deleted:until") == 1
    mill.deliver(late)
    assert broker.client.zcard("embedmill:deleted:until") == 2
    for name in ("a", "b"):
        broker.client.zadd("embedmill:deleted:until", {f"{COLLECTION}\0{name}": 1})
    mill.deliver(mill.write(("c", "some text")))
    assert not broker.client.exists("embedmill:deleted", "embedmill:deleted:until")


def test_an_unchanged_text_wins_over_what_is_on_its_way(mill: Mill) -> None:
    mill.deliver(mill.write(("a", "text one")))
    between, last = mill.write(("a", "text two")), mill.write(("a", "text one"))
    mill.deliver(last)
    mill.deliver(between)
    assert mill.store.texts() == {"a": "text one"}
    assert mill.job(last).progress().unchanged == 0
    mill.deliver(again := mill.write(("a", "text one")))
    assert mill.job(again).progress().unchanged == 1


def test_a_dead_letter_may_still_win_over_an_older_text(mill: Mill) -> None:
    """So the same text again, which wins over the letter, has to be written."""
    mill.deliver(mill.write(("a", "text one")))
    mill.store.strict = True
    mill.deliver(mill.write(("a", f"{REFUSED} text")))
    mill.store.strict = False
    mill.deliver(again := mill.write(("a", "text one")))
    assert mill.job(again).progress().unchanged == 0
    mill.deliver(*mill.replay())
    assert mill.store.texts() == {"a": "text one"}


TEXTS = ("text one", "text two", f"{REFUSED}three", LONG)


class Weather:
    """Random acceptances, and random deliveries of them: late, twice, cut off, in one another."""

    def __init__(self, mill: Mill, chance: Random) -> None:
        self.mill, self.chance = mill, chance
        self.accepted: dict[str, str | None] = {}
        self.messages: list[Delivery] = []
        self.depth = 0

    def accept(self) -> None:
        names = self.chance.sample("abc", self.chance.randint(1, 2))
        if self.chance.random() < 0.3:
            self.messages.append(self.mill.delete(*names))
            self.accepted |= dict.fromkeys(names)
            return
        chosen = {name: self.chance.choice(TEXTS) for name in names}
        self.messages.append(self.mill.write(*chosen.items()))
        self.accepted |= {name: " ".join(text.split()[:2]) for name, text in chosen.items()}

    def deliver(self) -> None:
        if self.messages:
            some = self.chance.sample(self.messages, min(len(self.messages), 2))
            self.mill.deliver(*some)

    def meanwhile(self) -> None:
        if self.depth < 2 and self.chance.random() < 0.3:
            self.depth += 1
            self.deliver()
            self.depth -= 1
        if self.depth == 0 and self.chance.random() < 0.1:
            raise Killed

    def step(self) -> None:
        self.mill.store.strict = self.chance.random() < 0.5
        try:
            self.chance.choice([self.accept, self.deliver, self.deliver, self.replay])()
        except Killed:
            self.depth = 0

    def replay(self) -> None:
        self.messages += self.mill.replay()

    def clear_up(self) -> None:
        """What is left is delivered, alone and in a random order."""
        self.mill.store.moment = lambda: None
        self.mill.store.strict = False
        self.messages += self.mill.replay()
        self.chance.shuffle(self.messages)
        for message in self.messages:
            self.mill.deliver(message)


SEEDS = [*range(10), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(10, 60))]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_last_that_was_accepted_stands(mill: Mill, broker: RedisServer, seed: int) -> None:
    weather = Weather(mill, Random(seed))
    mill.store.moment = weather.meanwhile
    for _ in range(30):
        weather.step()
    weather.clear_up()
    expected = {name: text for name, text in weather.accepted.items() if text is not None}
    assert mill.store.texts() == expected
    assert int(broker.client.hget("embedmill:outstanding", "texts") or 0) == 0
    assert not broker.client.exists("embedmill:pending")
    assert set(broker.client.hkeys("embedmill:deleted")) == set(
        broker.client.zrange("embedmill:deleted:until", 0, -1)
    )
