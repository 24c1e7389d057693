"""The ledger on a real Redis: limits are exact, the first outcome wins, nothing stays behind."""

import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest

from tasks.claims import Claim
from tasks.errors import BrokerDown, EmbedError, JobNotFound, ModelMismatch, QueueFull
from tasks.ledger import Ledger, Submission, run
from tasks.messages import Coordinates, Outcome
from tasks.presence import record_collection
from tasks.roster import Roster, read_roster
from tasks.settings import Settings
from tasks.snapshot import JobSnapshot, QueueSnapshot, read_job, read_queue
from tests.redis_server import RedisServer


def submission(
    job_id: str,
    texts: int,
    *,
    size: int = 10,
    messages: int = 1,
    collection: str = "documents",
    queue: str = "embed",
) -> Submission:
    ids = [str(index) for index in range(texts)]
    envelopes = [f"envelope {number}".encode() for number in range(messages)]
    return Submission(job_id, ids, [size] * texts, envelopes, collection, "chunk", queue)


def place(job_id: str, start: int, count: int) -> Coordinates:
    return Coordinates(v=1, job=job_id, start=start, count=count)


def number(answer: int | EmbedError) -> int:
    assert isinstance(answer, int), answer
    return answer


def done(*indices: int) -> list[Outcome]:
    return [Outcome(index, str(index), "done", points=2) for index in indices]


class Book:
    """The ledger, its Redis, and short names for what the tests ask."""

    def __init__(self, broker: RedisServer, settings: Settings) -> None:
        self.client, self.settings, self.ledger = broker.client, settings, Ledger(settings)

    def accept(self, job_id: str, texts: int, *, mode: str = "limited", size: int = 10) -> int:
        return run(self.client, self.ledger.accept(submission(job_id, texts, size=size), mode=mode))

    def accept_all(self, *submissions: Submission) -> list[int | EmbedError]:
        return run(self.client, self.ledger.accept_all(submissions))

    def claim(self, job_id: str, start: int, count: int) -> Claim:
        return run(self.client, self.ledger.claim(place(job_id, start, count)))

    def settle(self, job_id: str, outcomes: list[Outcome]) -> int:
        return run(self.client, self.ledger.settle(job_id, outcomes))

    def cancel(self, job_id: str) -> int:
        return run(self.client, self.ledger.cancel(job_id))

    def job(self, job_id: str) -> JobSnapshot:
        return read_job(self.client, job_id, self.settings)

    def roster(self, job_id: str) -> Roster:
        return read_roster(self.client, job_id, self.settings)

    def queue(self) -> QueueSnapshot:
        return read_queue(self.client, self.settings)


@pytest.fixture
def book(broker: RedisServer, settings: Settings) -> Book:
    return Book(broker, settings)


@pytest.fixture
def limited(broker: RedisServer, settings: Settings) -> Callable[..., Book]:
    return lambda **limits: Book(broker, settings.model_copy(update=limits))


def test_a_document_goes_from_accepted_to_done(book: Book) -> None:
    first = book.accept("j", 3)
    assert book.job("j").state == "open"
    assert book.claim("j", 0, 3) == Claim(False, first, (0, 1, 2))
    assert book.settle("j", done(0, 1, 2)) == 3
    job = book.job("j")
    assert (job.state, job.done, job.points, job.eta_s) == ("done", 3, 6, 0.0)
    assert book.queue().outstanding == book.queue().outstanding_bytes == 0


def test_what_is_cancelled_is_no_work_done(limited: Callable[..., Book]) -> None:
    """It would promise room that nobody makes, and keep /readyz green while nothing moves."""
    book = limited(queue_limit=1000)
    book.accept("j", 1000)
    book.claim("j", 0, 1)
    book.cancel("j")
    assert (book.job("j").cancelled, book.job("j").rate_per_s) == (999, 0.0)
    assert book.queue().drain_rate_per_s == 0
    book.settle("j", done(0))
    assert 0 < book.queue().drain_rate_per_s < 2
    book.accept("k", 1000)
    with pytest.raises(QueueFull) as refused:
        book.accept("l", 1000)
    assert refused.value.retry_after_s > 30


def test_acceptance_numbers_increase_over_jobs_and_ledgers(book: Book, broker: RedisServer) -> None:
    firsts = [book.accept(job, 500) for job in "abc"]
    assert all(later >= earlier + 500 for earlier, later in pairwise(firsts))
    broker.client.flushdb()
    assert book.accept("d", 1) >= firsts[-1] + 500


def test_acceptance_numbers_increase_when_the_clock_goes_back(
    book: Book, broker: RedisServer
) -> None:
    ahead = 8 * 10**15  # in the year 2223; integers are exact up to 9 * 10**15
    broker.client.set("embedmill:sequence", ahead)
    assert book.accept("a", 2) == ahead + 1
    assert book.accept("b", 1) == ahead + 3


def test_accepting_a_job_twice_counts_and_enqueues_it_once(book: Book) -> None:
    assert book.accept("j", 3) == book.accept("j", 3)
    assert (book.queue().outstanding, book.queue().waiting) == (3, 1)


def test_another_message_of_an_open_job_is_enqueued_but_not_counted(book: Book) -> None:
    book.accept("j", 3)
    book.accept("j", 3, mode="again")
    assert (book.queue().outstanding, book.queue().waiting) == (3, 2)


def test_the_limit_in_texts_is_exact(limited: Callable[..., Book]) -> None:
    book = limited(queue_limit=10)
    book.accept("a", 6)
    book.accept("b", 4)
    with pytest.raises(QueueFull) as refused:
        book.accept("c", 1)
    assert refused.value.retry_after_s == 30  # nothing drains
    assert book.queue().totals["refused"] == 1
    assert book.queue().totals["refusals"] == 1
    book.settle("b", done(0))
    book.accept("d", 1)
    assert book.queue().outstanding == 10


def test_the_limit_in_bytes_is_exact(limited: Callable[..., Book]) -> None:
    book = limited(queue_bytes=100)
    book.accept("a", 1, size=60)
    with pytest.raises(QueueFull):
        book.accept("b", 1, size=41)
    book.accept("c", 1, size=40)
    assert book.queue().outstanding_bytes == 100


def test_a_refused_job_leaves_nothing_behind(
    limited: Callable[..., Book], broker: RedisServer
) -> None:
    book = limited(queue_limit=1)
    with pytest.raises(QueueFull):
        book.accept("j", 2)
    assert broker.client.keys("embedmill:job:*") == []
    assert book.queue().waiting == 0


def test_forced_work_is_counted_but_never_refused(limited: Callable[..., Book]) -> None:
    book = limited(queue_limit=1)
    book.accept("j", 5, mode="forced")
    assert book.queue().outstanding == 5


def test_many_clients_at_once_never_pass_the_limit(limited: Callable[..., Book]) -> None:
    book = limited(queue_limit=50)

    def accepted(number: int) -> bool:
        try:
            book.accept(f"job-{number}", 1)
        except QueueFull:
            return False
        return True

    with ThreadPoolExecutor(16) as clients:
        assert sum(clients.map(accepted, range(200))) == 50


def test_jobs_of_one_round_trip_are_numbered_in_their_order(book: Book) -> None:
    before = book.accept("before", 3)
    answers = book.accept_all(*(submission(job, 5) for job in "abc"))
    first = number(answers[0])
    assert before + 3 <= first
    assert answers == [first, first + 5, first + 10]
    assert book.accept("after", 1) >= first + 15
    assert (book.queue().outstanding, book.queue().waiting) == (19, 5)
    assert book.queue().totals["accepted"] == 19


def test_each_job_of_a_round_trip_has_its_own_answer(
    limited: Callable[..., Book], broker: RedisServer
) -> None:
    book = limited(queue_limit=10)
    record_collection(book.client, "theirs", "another-model", 384)
    broker.client.set("taken", "no list")
    answers = book.accept_all(
        submission("a", 6),
        submission("b", 1, collection="theirs"),
        submission("c", 5),
        submission("d", 2, queue="taken"),
        submission("a", 6),
        submission("e", 4),
        submission("f", 1),
    )
    expected = [int, ModelMismatch, QueueFull, BrokerDown, int, int, QueueFull]
    assert [type(answer) for answer in answers] == expected
    assert answers[4] == answers[0]
    assert answers[5] == number(answers[0]) + 6
    queue = book.queue()
    assert (queue.outstanding, queue.outstanding_bytes, queue.waiting) == (10, 100, 2)
    assert (queue.totals["accepted"], queue.totals["refused"]) == (10, 6)
    assert not broker.client.keys("embedmill:job:[bcdf]*")


def test_a_full_redis_accepts_nothing_and_counts_nothing(book: Book, broker: RedisServer) -> None:
    broker.client.config_set("maxmemory", 1)
    try:
        answers = book.accept_all(submission("a", 1), submission("b", 1))
    finally:
        broker.client.config_set("maxmemory", 0)
    assert [type(answer) for answer in answers] == [BrokerDown] * 2
    assert book.queue().outstanding == 0
    assert broker.client.keys("embedmill:*") == []


def test_a_job_of_any_size_is_accepted_whole(
    limited: Callable[..., Book], broker: RedisServer
) -> None:
    book = limited(queue_limit=20_000)
    (first,) = book.accept_all(submission("j", 20_000, messages=10_000))
    assert (book.queue().outstanding, book.queue().waiting) == (20_000, 10_000)
    assert broker.client.lrange("embed", -1, -1) == [b"envelope 0"]  # the next to be fetched
    assert book.claim("j", 19_990, 10).indices == tuple(range(19_990, 20_000))
    assert book.claim("j", 0, 1).sequence == first


def test_the_first_outcome_of_a_document_wins(book: Book) -> None:
    book.accept("j", 2)
    book.settle("j", done(0))
    late = [Outcome(0, "0", "failed", code="late"), Outcome(1, "1", "failed", code="bad")]
    assert book.settle("j", late) == 1
    job = book.job("j")
    assert (job.done, job.failed, [row["code"] for row in job.errors]) == (1, 1, ["bad"])


def test_documents_of_several_points_are_counted(book: Book) -> None:
    book.accept("j", 3)
    book.settle("j", [*done(0, 1), Outcome(2, "2", "done", points=1)])
    assert (book.job("j").chunked, book.job("j").points) == (2, 5)


def test_a_message_that_comes_back_claims_only_what_is_unsettled(book: Book) -> None:
    first = book.accept("j", 4)
    book.claim("j", 0, 4)
    book.settle("j", done(1, 3))
    assert book.claim("j", 0, 4).indices == (0, 2)
    book.settle("j", done(0, 2))
    assert book.claim("j", 0, 4) == Claim(False, first, (), suspect=True, done=4)


def test_a_message_that_was_given_back_is_no_suspect(book: Book) -> None:
    book.accept("j", 4)
    assert not book.claim("j", 0, 4).suspect
    run(book.client, book.ledger.release(place("j", 0, 4)))
    assert not book.claim("j", 0, 4).suspect
    assert book.claim("j", 0, 4).suspect
    run(book.client, book.ledger.release(place("j", 0, 4)))
    assert book.cancel("j") == 4


def test_a_message_of_an_unknown_job_has_expired(book: Book) -> None:
    assert book.claim("gone", 0, 4).expired
    assert book.settle("gone", done(0)) == 0
    with pytest.raises(JobNotFound):
        book.job("gone")


def test_cancelling_leaves_what_has_started(book: Book) -> None:
    book.accept("j", 4)
    book.claim("j", 0, 2)
    assert book.cancel("j") == 2
    assert book.queue().outstanding == 2
    book.settle("j", done(0, 1))
    job = book.job("j")
    assert (job.state, job.done, job.cancelled) == ("cancelled", 2, 2)


def test_cancelling_what_is_settled_changes_nothing(book: Book) -> None:
    book.accept("j", 1)
    book.settle("j", done(0))
    assert book.cancel("j") == 0
    assert book.job("j").state == "done"
    assert book.cancel("unknown") == -1


def test_only_settled_jobs_expire(book: Book, broker: RedisServer) -> None:
    book.accept("j", 1)
    assert broker.client.ttl("embedmill:job:j") == -1
    book.settle("j", [Outcome(0, "0", "failed", code="bad")])
    assert broker.client.ttl("embedmill:job:j") > 0
    assert broker.client.ttl("embedmill:job:j:errors") > 0
    assert not broker.client.exists("embedmill:job:j:open")
    assert broker.client.zcard("embedmill:jobs") == 0


def test_the_first_hundred_errors_are_kept(book: Book) -> None:
    book.accept("j", 150)
    book.settle("j", [Outcome(i, str(i), "failed", code="bad") for i in range(150)])
    assert [row["index"] for row in book.job("j").errors] == list(range(100))


def test_a_collection_of_another_model_is_refused(book: Book) -> None:
    record_collection(book.client, "documents", "another-model", 384)
    with pytest.raises(ModelMismatch, match="another-model"):
        book.accept("j", 1)


def test_the_roster_says_how_every_document_ended(book: Book) -> None:
    first = book.accept("j", 6)
    book.claim("j", 0, 4)
    book.settle("j", [*done(0), Outcome(2, "2", "failed", code="bad")])
    book.cancel("j")
    roster = book.roster("j")
    assert "".join(entry.ending[0] for entry in roster.entries) == "dofocc"
    assert [(entry.id, entry.sequence) for entry in roster.entries[:2]] == [
        ("0", first),
        ("1", first + 1),
    ]
    assert roster.counts == {"open": 2, "done": 1, "failed": 1, "cancelled": 2}
    assert [row["index"] for row in roster.errors] == [2]


def test_the_roster_expires_with_its_job(book: Book, broker: RedisServer) -> None:
    book.accept("j", 2)
    book.settle("j", [*done(0), Outcome(1, "1", "failed", code="bad")])
    left = {key: broker.client.ttl(key) for key in broker.client.keys("embedmill:job:*")}
    assert len(left) == 4
    assert all(ttl > 0 for ttl in left.values())
    with pytest.raises(JobNotFound):
        book.roster("unknown")


@pytest.mark.parametrize("seed", range(5))
def test_counts_add_up_whatever_happens(book: Book, seed: int) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    for number in range(10):
        book.accept(f"j{number}", chance.randint(1, 20))
    for _ in range(200):
        job = f"j{chance.randrange(10)}"
        indices = [chance.randrange(20) for _ in range(chance.randint(1, 8))]
        match chance.choice(["claim", "done", "failed", "cancel"]):
            case "claim":
                book.claim(job, min(indices), len(indices))
            case "cancel" if chance.random() < 0.1:
                book.cancel(job)
            case state:
                state = "failed" if state == "failed" else "done"
                book.settle(job, [Outcome(i, str(i), state) for i in indices])  # type: ignore[arg-type]
    jobs = [book.job(f"j{number}") for number in range(10)]
    open_texts = sum(job.accepted - job.settled for job in jobs)
    assert book.queue().outstanding == open_texts
    assert book.queue().outstanding_bytes == 10 * open_texts
    totals = book.queue().totals
    settled = totals["done"] + totals["failed"] + totals["cancelled"]
    assert totals["accepted"] == settled + open_texts
    assert all((job.state == "open") == (job.accepted > job.settled) for job in jobs)
    for roster in (book.roster(f"j{number}") for number in range(10)):
        endings = Counter(entry.ending for entry in roster.entries)
        assert endings == Counter(roster.counts)


def test_a_redis_that_is_down_is_said_so(settings: Settings) -> None:
    import redis

    elsewhere = settings.model_copy(update={"broker_url": "redis://user:secret@127.0.0.1:1/0"})
    client: redis.Redis = redis.Redis.from_url("redis://127.0.0.1:1/0")
    with pytest.raises(BrokerDown) as down:
        run(client, Ledger(elsewhere).accept(submission("j", 1)))
    assert "secret" not in str(down.value)
