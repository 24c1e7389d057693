"""The backlog that tuning measures with: as many messages as wished, and nothing left of it."""

import base64
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
import redis

from compose.tuning.backlog import Backlog, count_settled
from tasks.messages import QUEUE
from tasks.settings import Settings
from tasks.snapshot import read_queue
from tests.redis_server import local_redis


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    with local_redis(tmp_path) as server:
        yield Settings(broker_url=server.url, qdrant_url="http://127.0.0.1:1", model="fake")


def texts_of(client: redis.Redis) -> list[str]:
    found = []
    for raw in client.lrange(QUEUE, 0, -1)[::-1]:
        documents, _, _ = orjson.loads(base64.b64decode(orjson.loads(raw)["body"]))
        found += [document["text"] for document in documents[0]]
    return found


@pytest.mark.parametrize(("message_texts", "messages"), [(64, 3), (1, 130)])
def test_texts_wait_in_messages_of_64_or_of_one(
    settings: Settings, message_texts: int, messages: int
) -> None:
    with redis.Redis.from_url(settings.broker_url) as client:
        backlog = Backlog(client, settings, ["one", "two", "three"], "tune-1")
        backlog.send(130, message_texts=message_texts)
        queue = read_queue(client, settings)
        assert (queue.waiting, queue.outstanding) == (messages, 130)
        assert texts_of(client)[:7] == ["one", "two", "three", "one 1", "two 1", "three 1", "one 2"]
        backlog.drop()
        backlog.forget()
        queue = read_queue(client, settings)
        assert (queue.waiting, queue.outstanding) == (0, 0)
        assert count_settled(client, settings) == 0


def test_a_long_backlog_is_several_jobs(settings: Settings) -> None:
    with redis.Redis.from_url(settings.broker_url) as client:
        Backlog(client, settings, ["a text"], "tune-1").send(2500, message_texts=64)
        assert read_queue(client, settings).outstanding == 2500
        assert client.zcard("embedmill:jobs") == 3


def test_long_texts_are_accepted_in_parts(settings: Settings) -> None:
    with redis.Redis.from_url(settings.broker_url) as client:
        Backlog(client, settings, ["x" * 1_000_000], "tune-1").send(20, message_texts=64)
        assert read_queue(client, settings).outstanding == 20
        assert client.zcard("embedmill:jobs") == 3
