"""A query's life in Redis: counted, answered only to who waits, and nothing of it is left."""

from collections.abc import Sequence
from typing import Any

import pytest

from tasks import app
from tasks.admission import redis_client
from tasks.errors import NoAnswer, TextTooLong
from tasks.ledger import run
from tasks.messages import QUERY_QUEUE
from tasks.queries import (
    ANSWER_TTL_S,
    ASKED,
    WEIGHTS,
    Answer,
    Question,
    ask,
    cut_query,
    leave,
    new_box,
    pack,
    wanted,
)
from tasks.queries import answer as give_answers
from tasks.settings import Settings
from tests.processes import wait_until
from tests.redis_server import RedisServer
from workers import queries
from workers.queries import answer

BOX = new_box()


def enqueue(settings: Settings, texts: Sequence[str]) -> tuple[list[Question], list[bytes], bool]:
    questions = cut_query(texts, BOX)
    messages = [pack(app, question) for question in questions]
    return questions, messages, run(redis_client(), ask(questions, messages, settings))


def give(settings: Settings, question: Question, **fields: Any) -> int:
    place = question.place
    reply = Answer(place["id"], place["part"], **fields)
    return run(redis_client(), give_answers([place], [reply], settings))


def keys(broker: RedisServer) -> set[bytes | str]:
    return set(broker.client.scan_iter("*"))


def test_a_query_that_is_answered_leaves_nothing(broker: RedisServer, settings: Settings) -> None:
    questions, messages, taken_in = enqueue(settings, ["a"] * 65)
    assert (taken_in, len(questions)) == (True, 2)
    assert broker.client.hget(WEIGHTS, "total") == b"65"
    assert [give(settings, question, tokens=7) for question in questions] == [1, 1]
    assert keys(broker) == {BOX.encode(), QUERY_QUEUE.encode()}
    assert 0 < broker.client.ttl(BOX) <= ANSWER_TTL_S
    rows: list[Any] = broker.client.lrange(BOX, 0, -1)
    assert [Answer.from_json(row).part for row in rows] == [0, 1]
    broker.client.delete(BOX)
    assert run(redis_client(), leave(questions[0].place["id"], messages, settings)) == 2
    assert keys(broker) == set()


def test_whoever_waits_no_more_gets_no_answer(broker: RedisServer, settings: Settings) -> None:
    (question,), messages, _ = enqueue(settings, ["a"])
    assert run(redis_client(), wanted([question.place], settings)) == [True]
    assert run(redis_client(), leave(question.place["id"], messages, settings)) == 1
    assert run(redis_client(), wanted([question.place], settings)) == [False]
    assert give(settings, question) == 0
    assert keys(broker) == set()


def test_a_query_waits_for_a_time(broker: RedisServer, settings: Settings) -> None:
    impatient = settings.model_copy(update={"query_timeout_s": 0.05, "query_limit": 1})
    (question,), _, _ = enqueue(impatient, ["a"])
    place = question.place
    wait_until(lambda: not run(redis_client(), wanted([place], settings))[0], "it has waited")
    assert give(settings, question) == 0
    assert 0 < broker.client.ttl(ASKED) <= 61
    *_, taken_in = enqueue(impatient, ["b"])  # its room is free without anybody's doing
    assert taken_in
    assert broker.client.hget(WEIGHTS, "total") == b"1"


def test_the_limit_counts_texts_and_large_ones_more_than_once(
    broker: RedisServer, settings: Settings
) -> None:
    small = settings.model_copy(update={"query_limit": 3})
    *_, first = enqueue(small, ["a", "b"])
    *_, second = enqueue(small, ["c" * 20_000])
    *_, third = enqueue(small, ["d"])
    *_, fourth = enqueue(small, ["e"])
    assert (first, second, third, fourth) == (True, False, True, False)


def test_what_nobody_waits_for_is_no_work(
    broker: RedisServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def must_not_be_used() -> None:
        raise AssertionError("the model was asked for")

    monkeypatch.setattr(queries, "resources", must_not_be_used)
    (question,), messages, _ = enqueue(settings, ["a"])
    run(redis_client(), leave(question.place["id"], messages, settings))
    answer([question])
    assert keys(broker) == set()


def test_an_answer_survives_its_way(settings: Settings) -> None:
    error = TextTooLong("text 3 is too long")
    back = Answer.from_json(Answer("id", 1, error=error).to_json())
    assert isinstance(back.error, TextTooLong)
    assert (back.error.detail, back.error.code) == (error.detail, "text_too_long")
    lost = Answer.from_json(Answer("id", 1, error=NoAnswer("x", code="lost")).to_json())
    assert isinstance(lost.error, NoAnswer)
    assert lost.error.code == "lost"
    hits = [{"id": "1", "score": 0.5, "payload": {"text": "é"}}]
    assert Answer.from_json(Answer("id", 0, hits=hits).to_json()).hits == hits
