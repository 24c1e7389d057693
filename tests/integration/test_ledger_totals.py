"""What the ledger counts beside documents: redeliveries, returns, waiting, dead letters."""

from tasks.ledger import run
from tasks.messages import Outcome
from tasks.settings import Settings
from tasks.statistics import read_statistics
from tests.integration.test_ledger import Book, place
from tests.redis_server import RedisServer


def test_what_comes_back_is_counted_by_its_reason(broker: RedisServer, settings: Settings) -> None:
    book = Book(broker, settings)
    book.accept("j", 4)
    book.claim("j", 0, 4)
    run(book.client, book.ledger.release(place("j", 0, 4)))  # the store was away
    book.claim("j", 0, 4)
    book.claim("j", 0, 4)  # its process was killed
    totals = book.queue().totals
    assert (totals["returned"], totals["redelivered"]) == (1, 1)


def test_a_claim_says_how_long_its_message_has_waited(
    broker: RedisServer, settings: Settings
) -> None:
    book = Book(broker, settings)
    book.accept("j", 2)
    book.client.hincrbyfloat("embedmill:job:j", "created_at", -100)
    assert 100 <= book.claim("j", 0, 2).waited_s < 200


def test_dead_letters_are_counted_and_only_so_many_kept(
    broker: RedisServer, settings: Settings
) -> None:
    book = Book(broker, settings.model_copy(update={"dead_letters": 2}))
    book.accept("j", 3)
    failed = [Outcome(index, str(index), "failed", code="bad") for index in range(3)]
    run(book.client, book.ledger.settle("j", failed, dict.fromkeys(range(3), b"letter")))
    statistics = read_statistics(book.client, book.settings)
    assert book.queue().totals["dead_letters"] == 3
    assert (statistics.dead_letters, statistics.dead_letter_bytes) == (2, 12)
