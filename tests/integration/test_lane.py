"""A child in the middle of a pass takes questions that wait; each is answered, or told as lost."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import orjson
import pytest

from tasks import app
from tasks.admission import redis_client
from tasks.errors import BrokerDown, NoAnswer
from tasks.ledger import run
from tasks.messages import MESSAGE_DOCUMENTS, QUERY_HEADER, QUERY_QUEUE, QUERY_TASK_NAME
from tasks.queries import (
    TAKEN,
    TAKEN_MESSAGES,
    Answer,
    QueryPlace,
    Question,
    Search,
    ask,
    cut_query,
    disown,
    leave,
    new_box,
    pack,
    take,
    unpack,
    wanted,
)
from tasks.queries import answer as give_answers
from tasks.settings import Settings
from tests.consuming import consuming, publish
from tests.redis_server import RedisServer
from workers import lane, queries
from workers.lane import LOOK_S, REST, SILENCE_S, Lane
from workers.soft_limit import OutOfTime
from workers.transport import Channel

CHILD = "w@host:1"
BOX = new_box()


def enqueue(settings: Settings, *texts: str) -> list[Question]:
    questions = cut_query(texts, BOX)
    messages = [pack(app, question) for question in questions]
    assert run(redis_client(), ask(questions, messages, settings))
    return questions


def take_now(settings: Settings, child: str = CHILD) -> list[QueryPlace]:
    return [unpack(message).place for message in run(redis_client(), take(child, settings))]


def answers(broker: RedisServer) -> list[Answer]:
    rows: Any = broker.client.lrange(BOX, 0, -1)
    return [Answer.from_json(row) for row in rows]


def test_questions_are_taken_oldest_first_and_once(broker: RedisServer, settings: Settings) -> None:
    asked = [enqueue(settings, str(n))[0].place for n in range(TAKEN_MESSAGES + 1)]
    taken = take_now(settings)
    assert taken == asked[:TAKEN_MESSAGES]
    assert take_now(settings, "w@host:2") == asked[TAKEN_MESSAGES:]
    assert take_now(settings, "w@host:3") == []
    assert 60 < broker.client.ttl(f"{TAKEN}{CHILD}") <= 60 + settings.query_timeout_s
    assert not broker.client.exists(f"{TAKEN}w@host:3")


def test_no_more_texts_are_taken_than_a_message_may_have(
    broker: RedisServer, settings: Settings
) -> None:
    large, small = enqueue(settings, *["a"] * (MESSAGE_DOCUMENTS + 1))
    assert take_now(settings) == [large.place]
    assert take_now(settings) == [small.place]


def test_what_nobody_waits_for_goes_and_what_is_no_question_stays(
    broker: RedisServer, settings: Settings
) -> None:
    (gone,) = enqueue(settings, "gone")
    run(redis_client(), leave(gone.place["id"], [], settings))
    place = {**gone.place, "box": "another list"}
    elsewhere = {"headers": {"task": QUERY_TASK_NAME, QUERY_HEADER: place}}
    another = {"headers": {"task": "another", QUERY_HEADER: gone.place}}
    strange = [b"no JSON", orjson.dumps(elsewhere), orjson.dumps(another), b"[1]"]
    broker.client.rpush(QUERY_QUEUE, *strange)  # the next that would be served
    (asked,) = enqueue(settings, "asked")
    assert take_now(settings) == [asked.place]
    assert broker.client.lrange(QUERY_QUEUE, 0, -1) == strange


def test_a_question_survives_its_way() -> None:
    search = Search("c", 3, {"must": []})
    (question,) = cut_query(["é"], BOX, role="document", search=search)
    unpacked = unpack(pack(app, question))
    assert (unpacked.place, list(unpacked.texts)) == (question.place, ["é"])
    assert (unpacked.role, unpacked.start, unpacked.search) == ("document", 0, search)


def test_whoever_asked_a_lost_child_is_told_so(broker: RedisServer, settings: Settings) -> None:
    """Not those whose answers it gave."""
    (first,) = enqueue(settings, "first")
    take_now(settings)
    done = Answer(first.place["id"], 0, tokens=1)
    run(redis_client(), give_answers([first.place], [done], settings, child=CHILD))
    (second,) = enqueue(settings, "second")
    take_now(settings)
    tell = partial(disown, redis_client(), CHILD, "lost", settings)
    assert (tell(), tell()) == (1, 0)
    given = {answer.id: answer.error for answer in answers(broker)}
    assert given[first.place["id"]] is None
    assert isinstance(given[second.place["id"]], NoAnswer)
    assert set(broker.client.scan_iter("*")) == {BOX.encode()}


class Clock:
    """What the lane takes for time; answering takes one of its seconds."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s

    def answer(self, questions: Sequence[Question], child: str) -> None:
        self.now_s += 1.0
        queries.answer([], child)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(lane, "time", clock)
    return clock


def test_documents_have_their_time_between_two_looks(
    broker: RedisServer, settings: Settings, clock: Clock
) -> None:
    way = Lane(CHILD, clock.answer, settings)
    enqueue(settings, "first")
    assert way.give_way() == 1.0
    enqueue(settings, "second")
    clock.now_s += 0.9 * REST
    assert way.give_way() == 0.0
    clock.now_s += 0.2 * REST
    assert way.give_way() == 1.0
    clock.now_s += REST
    assert way.give_way() == 0.0
    enqueue(settings, "third")
    assert way.give_way() == 0.0
    clock.now_s += 2 * LOOK_S
    assert way.give_way() == 1.0


@pytest.mark.parametrize("error", [KeyError("a bug"), OutOfTime("the limit of the pass")])
def test_a_failure_is_answered_and_is_no_document_s(
    broker: RedisServer, settings: Settings, error: Exception
) -> None:
    def fail(questions: Sequence[Question], child: str) -> None:
        raise error

    (question,) = enqueue(settings, "a")
    way = Lane(CHILD, fail, settings)
    if isinstance(error, OutOfTime):
        with pytest.raises(OutOfTime):
            way.give_way()
    else:
        assert way.give_way() > 0
    (answer,) = answers(broker)
    assert (answer.id, type(answer.error)) == (question.place["id"], NoAnswer)


def test_an_answer_that_redis_does_not_take_leaves_nobody_waiting(
    broker: RedisServer, settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It blinks after the questions were taken, and is back at the next look."""
    refusals = iter([BrokerDown("the answer is late")])

    def blink(*places: Any) -> Any:
        for refusal in refusals:
            raise refusal
        return wanted(*places)

    monkeypatch.setattr(queries, "wanted", blink)
    (question,) = enqueue(settings, "a")
    way = Lane(CHILD, queries.answer, settings)
    assert way.give_way() == 0.0
    assert answers(broker) == []
    clock.now_s += SILENCE_S
    way.give_way()
    (answer,) = answers(broker)
    assert (answer.id, type(answer.error)) == (question.place["id"], NoAnswer)


def test_a_look_whose_reply_is_lost_leaves_nobody_waiting(
    broker: RedisServer, settings: Settings, clock: Clock
) -> None:
    (question,) = enqueue(settings, "a")
    way = Lane(CHILD, clock.answer, settings)
    broker.client.rename(QUERY_QUEUE, "aside")
    broker.client.set(QUERY_QUEUE, "a string")  # Redis says no
    assert way.give_way() == 0.0
    broker.client.rename("aside", QUERY_QUEUE)
    take_now(settings)  # as the look has done whose reply it was
    assert way.give_way() == 0.0
    assert answers(broker) == []
    clock.now_s += SILENCE_S
    way.give_way()
    (answer,) = answers(broker)
    assert (answer.id, type(answer.error)) == (question.place["id"], NoAnswer)


def test_queries_stay_in_redis_while_no_child_is_idle(
    broker: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    idle = False
    monkeypatch.setattr(Channel, "takes_queries", staticmethod(lambda: idle))
    publish(broker.url, QUERY_QUEUE, "query")
    publish(broker.url, "a", "document")
    with consuming(broker.url, ["a", QUERY_QUEUE]) as consumer:
        assert consumer.receive(1) == ["document"]
        for _ in range(5):
            consumer.turn()
        assert broker.client.llen(QUERY_QUEUE) == 1
        idle = True
        assert consumer.receive(2) == ["document", "query"]
