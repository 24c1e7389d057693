"""A worker's announcements follow its children."""

import subprocess
import sys

import pytest
import redis
from redis.exceptions import ConnectionError as RedisDown

from tasks.ledger import run
from tasks.messages import ModelCard
from tasks.presence import workers
from tasks.settings import Settings
from tasks.statistics import ChildStatistics, Increments, read_statistics, record
from tests.redis_server import RedisServer
from workers import heartbeat
from workers.gpu_use import GpuMeter
from workers.heartbeat import Heartbeat
from workers.reports import Report

CARD = ModelCard("a-model", 384, 256, "cpu")


def test_a_child_that_died_is_not_shown_any_more(
    broker: RedisServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    own = Heartbeat(settings, "w@here", 1, GpuMeter([]))
    own.note(Report(child.pid, CARD))
    row = ChildStatistics("w@here", child.pid, 1, 1.0, 0.1, 1.0, 1)
    run(broker.client, record(row, Increments(), settings))
    own.look()
    assert [worker.warm for worker in workers(broker.client)] == [1]
    assert len(read_statistics(broker.client, settings).children) == 1

    child.kill()
    child.communicate()
    monkeypatch.setattr(heartbeat, "announce", _unreachable)
    own.look()  # Redis is away just then: it is told later
    monkeypatch.undo()
    own.beat()
    assert [worker.warm for worker in workers(broker.client)] == [0]
    assert not read_statistics(broker.client, settings).children
    own.retire()


def _unreachable(client: redis.Redis, *args: object, **options: object) -> None:
    raise RedisDown("away")
