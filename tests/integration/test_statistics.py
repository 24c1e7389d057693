"""Statistics on a real Redis: sums outlive the processes that made them, their series do not."""

import os
from collections.abc import Iterator

import pytest

from tasks.ledger import run
from tasks.settings import Settings
from tasks.statistics import (
    CHILDREN,
    EXPIRY,
    STATS,
    ChildStatistics,
    Increments,
    forget,
    read_statistics,
    record,
)
from tests.processes import wait_until
from tests.redis_server import RedisServer
from workers import publishing
from workers.publishing import Publisher
from workers.timings import Timings


def child(pid: int, texts: int = 1) -> ChildStatistics:
    return ChildStatistics("w@host", pid, texts, 10.0, 0.5, 3.0, 1000)


def say(broker: RedisServer, settings: Settings, pid: int, *texts: int) -> None:
    increments = Increments()
    for number in texts:
        increments.observe("pass_texts", number)
        increments.count("texts", number)
    run(broker.client, record(child(pid), increments, settings))


def pids(broker: RedisServer, settings: Settings) -> list[int]:
    return [child.pid for child in read_statistics(broker.client, settings).children]


@pytest.fixture
def publisher(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    monkeypatch.setattr(publishing, "INTERVAL_S", 0.02)
    publisher = Publisher(settings, "w@host")
    publisher.start()
    yield publisher
    publisher.stop()


def a_pass(texts: int) -> Timings:
    timings = Timings(texts=texts, points=texts, model_calls=1, computed_tokens=9, padding_tokens=2)
    timings.seconds["encode"] = 0.2
    timings.queue_waits_s = [0.5, 7.0]
    return timings


def test_nothing_is_known_of_an_empty_redis(broker: RedisServer, settings: Settings) -> None:
    statistics = read_statistics(broker.client, settings)
    assert (statistics.children, statistics.counters["texts"]) == ([], 0)
    assert statistics.histograms["pass"].cumulative()[-1] == ("+Inf", 0)


def test_children_add_to_the_same_sums(broker: RedisServer, settings: Settings) -> None:
    say(broker, settings, 1, 1, 64)
    say(broker, settings, 2, 64)
    statistics = read_statistics(broker.client, settings)
    assert statistics.counters["texts"] == 129
    histogram = statistics.histograms["pass_texts"]
    assert (sum(histogram.counts), histogram.sum) == (3, 129)
    assert [child.pid for child in statistics.children] == [1, 2]


def test_a_dead_child_s_series_go_and_its_sums_stay(
    broker: RedisServer, settings: Settings
) -> None:
    say(broker, settings, 1, 5)
    say(broker, settings, 2, 5)
    broker.client.zadd(EXPIRY, {"w@host:1": 1.0})  # it has said nothing since 1970
    assert pids(broker, settings) == [2]
    say(broker, settings, 2)
    assert broker.client.hkeys(CHILDREN) == [b"w@host:2"]
    forget(broker.client, "w@host", [2])
    assert pids(broker, settings) == []
    assert read_statistics(broker.client, settings).counters["texts"] == 10


def test_what_children_say_of_themselves_expires(broker: RedisServer, settings: Settings) -> None:
    say(broker, settings, 1, 5)
    assert all(0 < broker.client.ttl(key) <= 15 for key in (CHILDREN, EXPIRY))
    assert broker.client.ttl(STATS) == -1


def test_a_publisher_sends_passes_and_takes_itself_off_the_list(
    broker: RedisServer, settings: Settings
) -> None:
    publisher = Publisher(settings, "w@host")
    publisher.start()
    publisher.add(a_pass(3))
    publisher.add(a_pass(4))
    publisher.add(Timings())  # a message whose documents were settled already
    publisher.stop()
    statistics = read_statistics(broker.client, settings)
    assert statistics.children == []
    assert statistics.counters == {
        "texts": 7,
        "points": 7,
        "model_calls": 2,
        "computed_tokens": 18,
        "padding_tokens": 4,
    }
    histograms = statistics.histograms
    assert (sum(histograms["encode"].counts), histograms["encode"].sum) == (2, 0.4)
    assert sum(histograms["queue_wait"].counts) == 4


def test_a_publisher_describes_its_process(
    broker: RedisServer, settings: Settings, publisher: Publisher
) -> None:
    publisher.add(a_pass(3))

    def described() -> bool:
        [own] = read_statistics(broker.client, settings).children
        return own.last_texts == 3 and own.texts_per_s > 0

    wait_until(described, "it has sent the pass")
    [own] = read_statistics(broker.client, settings).children
    assert own.worker == "w@host"
    assert own.rss_bytes > 1_000_000
    assert own.cpu_s > 0


def test_what_is_measured_while_redis_is_away_is_sent_later(
    broker: RedisServer, settings: Settings, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as away:
        away.setattr(publisher, "_client", Publisher(gone(settings), "w@host")._client)
        publisher.add(a_pass(3))
        publisher.add(a_pass(4))
        wait_until(lambda: publisher._silent, "a try has failed")
    wait_until(
        lambda: read_statistics(broker.client, settings).counters["texts"] == 7, "both arrive"
    )


def test_a_process_logs_the_queue_when_asked_to(
    broker: RedisServer, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = Publisher(settings.model_copy(update={"log_queue_s": 0.1}), "w@host")
    publisher.start()
    try:
        said = f"pid {os.getpid()}: batch 0, waiting 0, reserved 0, outstanding 0"
        wait_until(lambda: said in caplog.text, "a line has come")
    finally:
        publisher.stop()


def gone(settings: Settings) -> Settings:
    return settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"})
