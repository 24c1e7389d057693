"""Delivery over a real Redis: what a consumer of this transport gets, and what it leaves."""

import json
from threading import Event
from typing import Any

import pytest

from tasks.broker import text
from tasks.messages import QUERY_QUEUE
from tests.consuming import LEASE_S, Consuming, connected, consuming, publish
from tests.redis_server import RedisServer
from workers.leases import FETCH_QUERIES, QUARANTINE

MALFORMED = [
    b"",
    b"not json",
    b'{"body": "cut off',
    b"[]",
    b"7",
    b"{}",
    b'{"properties": []}',
    b'{"properties": {"delivery_info": {"exchange": "", "routing_key": "a"}}}',
    b'{"properties": {"delivery_tag": "t"}}',
    b'{"properties": {"delivery_tag": "t", "delivery_info": {"exchange": ""}}}',
    b'{"properties": {"delivery_tag": "u", "delivery_info": {"exchange": "", "routing_key": "a"},'
    b' "body_encoding": "unheard-of"}, "body": "x"}',
    b'{"properties": {"delivery_tag": "v", "delivery_info": {"exchange": "", "routing_key": "a"},'
    b' "body_encoding": "base64"}, "body": "abc"}',
    b'{"properties": {"delivery_tag": "w", "delivery_info": {"exchange": "", "routing_key": "a"}},'
    b' "headers": "no mapping"}',
]


def held(broker: RedisServer) -> tuple[int, int]:
    return broker.client.hlen("unacked"), broker.client.zcard("unacked_index")


def test_messages_arrive_in_order_and_are_held_until_they_are_settled(broker: RedisServer) -> None:
    publish(broker.url, "a", *range(5))
    with consuming(broker.url) as consumer:
        assert consumer.receive(5) == [0, 1, 2, 3, 4]
        assert held(broker) == (5, 5)
        for message in consumer.messages:
            message.ack()
        assert held(broker) == (0, 0)


def test_no_more_are_fetched_than_there_is_credit_for(broker: RedisServer) -> None:
    publish(broker.url, "a", *range(10))
    with consuming(broker.url, prefetch=3) as consumer:
        consumer.receive(3)
        for _ in range(5):
            consumer.turn()
        assert (held(broker), broker.client.llen("a")) == ((3, 3), 7)
        consumer.messages[0].ack()
        assert consumer.receive(4)[-1] == 3


def test_without_credit_nothing_spins(broker: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(broker.url, "a", 1)
    with consuming(broker.url, ["a", "b"], prefetch=2) as consumer:
        consumer.receive(1)
        consumer.turn()  # both queues are empty: waiting
        publish(broker.url, "a", 2, 3, 4)
        publish(broker.url, "b", 5, 6, 7)
        consumer.receive(2)
        turns = _count_turns(consumer, monkeypatch)
        for _ in range(5):
            consumer.turn(0.2)
        assert turns[0] <= 5 + 4  # one a call, and one for each reply that was under way


def test_who_is_full_still_fetches_queries_and_few_of_them(
    broker: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = FETCH_QUERIES
    publish(broker.url, "a", *range(10))
    with consuming(broker.url, ["a", QUERY_QUEUE], prefetch=3) as consumer:
        consumer.receive(3)
        consumer.turn()
        publish(broker.url, QUERY_QUEUE, *range(100, 102 + most))
        assert consumer.receive(3 + most)[3:] == list(range(100, 100 + most))
        consumer.turn()
        assert (broker.client.llen("a"), broker.client.llen(QUERY_QUEUE)) == (7, 2)
        consumer.messages[-1].ack()  # a query: no document may come for it
        assert consumer.receive(4 + most)[-1] == 100 + most
        consumer.turn()
        assert broker.client.llen("a") == 7
        turns = _count_turns(consumer, monkeypatch)
        for _ in range(5):
            consumer.turn(0.2)
        assert turns[0] <= 5 + 4


def test_queries_are_fetched_first(broker: RedisServer) -> None:
    publish(broker.url, "a", 1, 2)
    publish(broker.url, QUERY_QUEUE, 100)
    with consuming(broker.url, ["a", QUERY_QUEUE]) as consumer:
        assert consumer.receive(3)[0] == 100


def _count_turns(consumer: Consuming, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often its event loop has polled since, in the only item."""
    poller = consumer.connection.transport.cycle.poller
    turns, poll = [0], poller.poll

    def count(timeout: Any) -> Any:
        turns[0] += 1
        return poll(timeout)

    monkeypatch.setattr(poller, "poll", count)
    return turns


def test_idle_queues_are_asked_about_once_a_second(
    broker: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with consuming(broker.url, ["a", "b"]) as consumer:
        for _ in range(3):
            consumer.turn()
        before = broker.client.info("stats")["total_commands_processed"]
        consumer.turn(1.5)
        after = broker.client.info("stats")["total_commands_processed"]
        assert after - before <= 10


@pytest.mark.parametrize("item", MALFORMED, ids=lambda item: repr(item[:40]))
def test_a_malformed_item_is_set_aside_and_the_rest_flows(broker: RedisServer, item: bytes) -> None:
    publish(broker.url, "a", "before")
    broker.client.lpush("a", item)
    publish(broker.url, "a", "after")
    with consuming(broker.url) as consumer:
        assert consumer.receive(2) == ["before", "after"]
        assert broker.client.lrange(QUARANTINE, 0, -1) == [item]
        assert broker.client.hget("embedmill:totals", "quarantined") == b"1"
        assert held(broker) == (2, 2)


def test_the_quarantine_is_bounded(broker: RedisServer) -> None:
    broker.client.lpush("a", *[f"junk {n}" for n in range(1100)])
    publish(broker.url, "a", "after")
    with consuming(broker.url) as consumer:
        consumer.receive(1)
    assert broker.client.llen(QUARANTINE) == 1000
    assert broker.client.hget("embedmill:totals", "quarantined") == b"1100"


def test_a_held_entry_that_cannot_be_read_is_set_aside(broker: RedisServer) -> None:
    broker.client.hset("unacked", "t", "[1")
    broker.client.zadd("unacked_index", {"t": 1})
    with consuming(broker.url) as consumer:
        consumer.until(lambda: broker.client.llen(QUARANTINE))
    assert held(broker) == (0, 0)


def test_queues_take_turns(broker: RedisServer) -> None:
    publish(broker.url, "a", *(f"a{n}" for n in range(4)))
    publish(broker.url, "b", *(f"b{n}" for n in range(4)))
    with consuming(broker.url, ["a", "b"], prefetch=4) as consumer:
        assert sorted(consumer.receive(4)) == ["a0", "a1", "b0", "b1"]


def test_queues_in_an_order_of_priority_do_not_take_turns(broker: RedisServer) -> None:
    publish(broker.url, "a", *(f"a{n}" for n in range(4)))
    publish(broker.url, "b", *(f"b{n}" for n in range(4)))
    order: dict[str, Any] = {"queue_order_strategy": "priority"}
    with consuming(broker.url, ["b", "a"], prefetch=6, **order) as consumer:
        assert consumer.receive(6) == ["b0", "b1", "b2", "b3", "a0", "a1"]


def test_messages_of_higher_priority_come_first(broker: RedisServer) -> None:
    steps: dict[str, Any] = {"priority_steps": [0, 3, 6, 9]}
    with consuming(broker.url, prefetch=1, **steps) as consumer:
        producer = consumer.connection.Producer()
        for priority in (9, 3, 0):
            producer.publish(priority, exchange="a", routing_key="a", priority=priority)
        for _ in range(3):
            consumer.receive(len(consumer.messages) + 1)
            consumer.messages[-1].ack()
        assert consumer.bodies == [0, 3, 9]


def test_a_waiting_consumer_hears_of_any_of_its_queues(broker: RedisServer) -> None:
    with consuming(broker.url, ["a", "b", "c"]) as consumer:
        for _ in range(3):
            consumer.turn()
        for count, name in enumerate("cab", start=1):
            publish(broker.url, name, name)
            consumer.receive(count)
        assert consumer.bodies == ["c", "a", "b"]


def test_kombus_own_consumer_takes_over_what_is_put_back(broker: RedisServer) -> None:
    publish(broker.url, "a", *range(3))
    with consuming(broker.url) as consumer:
        consumer.receive(3)
        consumer.messages[0].ack()
    assert held(broker) == (0, 0)
    with consuming(broker.url, stock=True) as other:
        assert other.receive(2) == [1, 2]
        assert all(message.headers["redelivered"] for message in other.messages)


@pytest.mark.parametrize("stock_holds", [True, False])
def test_either_transport_recovers_what_the_other_held(
    broker: RedisServer, stock_holds: bool
) -> None:
    publish(broker.url, "a", {"text": "ü " * 50})
    with consuming(broker.url, stock=stock_holds) as holder:
        holder.receive(1)
        (tag,) = broker.client.hkeys("unacked")
        broker.client.zadd("unacked_index", {text(tag): 1})  # as if its holder had died long ago
        sweeps: dict[str, Any] = {"unacked_restore_interval": 0.1}
        with consuming(broker.url, stock=not stock_holds, **sweeps) as other:
            assert other.receive(1) == [{"text": "ü " * 50}]
            info = other.messages[0].delivery_info
            assert (info["exchange"], info["routing_key"], info["redelivered"]) == ("a", "a", True)
            other.messages[0].ack()
    assert (held(broker), broker.client.llen("a")) == ((0, 0), 0)


def test_a_held_message_is_not_delivered_again_however_long_it_is_held(broker: RedisServer) -> None:
    publish(broker.url, "a", 1, 2)
    lease: dict[str, Any] = {"visibility_timeout": LEASE_S, "unacked_restore_interval": 0.1}
    with consuming(broker.url, prefetch=2, **lease) as holder:
        holder.receive(2)
        first = min(score for _, score in broker.client.zscan_iter("unacked_index"))
        with consuming(broker.url, **lease) as sweeper:
            sweeper.until(
                lambda: all(
                    score > first + 3 * LEASE_S
                    for _, score in broker.client.zscan_iter("unacked_index")
                )
            )
            assert (sweeper.messages, held(broker)) == ([], (2, 2))


def test_what_this_channel_holds_is_not_delivered_to_it_again(broker: RedisServer) -> None:
    """After a stall: another worker has put it back, and it comes here while still worked on."""
    publish(broker.url, "a", 1)
    with consuming(broker.url) as consumer:
        consumer.receive(1)
        (entry,) = broker.client.hvals("unacked")
        broker.client.lpush("a", json.dumps(json.loads(entry)[0]))
        publish(broker.url, "a", 2)
        assert consumer.receive(2) == [1, 2]
        assert held(broker) == (2, 2)


def test_a_rejected_message_goes_to_the_back_or_nowhere(broker: RedisServer) -> None:
    publish(broker.url, "a", 1, 2, 3)
    with consuming(broker.url, prefetch=1) as consumer:
        consumer.receive(1)
        consumer.messages[0].requeue()
        for count in (2, 3):
            consumer.receive(count)
            consumer.messages[-1].reject()
        consumer.receive(4)
        assert consumer.bodies == [1, 2, 3, 1]
        assert consumer.messages[-1].delivery_info["redelivered"]
        assert held(broker) == (1, 1)


def test_a_message_whose_binding_is_gone_returns_to_its_queue(broker: RedisServer) -> None:
    publish(broker.url, "a", 1)
    with consuming(broker.url) as consumer:
        consumer.receive(1)
        broker.client.delete("_kombu.binding.a")
        consumer.messages[0].requeue()
        assert consumer.receive(2) == [1, 1]


def test_consumers_that_do_not_acknowledge_leave_nothing_held(broker: RedisServer) -> None:
    publish(broker.url, "a", 1, 2)
    with consuming(broker.url, no_ack=True) as consumer:
        assert consumer.receive(2) == [1, 2]
        assert held(broker) == (0, 0)


def test_keys_may_have_a_prefix(broker: RedisServer) -> None:
    with consuming(broker.url, global_keyprefix="mine:") as consumer:
        consumer.connection.Producer().publish(1, exchange="a", routing_key="a")
        consumer.receive(1)
        assert broker.client.hlen("mine:unacked") == 1
        consumer.messages[0].requeue()
        assert consumer.receive(2) == [1, 1]
        consumer.messages[1].ack()
    assert {text(key).partition(":")[0] for key in broker.client.keys("*")} == {"mine"}


def test_a_full_redis_can_still_be_drained(broker: RedisServer) -> None:
    publish(broker.url, "a", 1, 2, 3)
    broker.client.lpush("a", "junk")
    with consuming(broker.url, visibility_timeout=LEASE_S) as consumer:
        used = broker.client.info("memory")["used_memory"]
        broker.client.config_set("maxmemory", used // 2)
        try:
            consumer.receive(3)
            before = dict(broker.client.zscan_iter("unacked_index"))
            consumer.channel.qos.renew()
            after = dict(broker.client.zscan_iter("unacked_index"))
            assert all(after[tag] > score for tag, score in before.items())
            consumer.messages[0].ack()
            consumer.messages[1].requeue()
            assert consumer.receive(4)[-1] == 2
        finally:
            broker.client.config_set("maxmemory", 0)
    assert (held(broker), broker.client.llen("a")) == ((0, 0), 2)


def test_a_server_may_close_connections_that_rest(broker: RedisServer) -> None:
    with consuming(broker.url) as consumer:
        consumer.turn()
        consumer.turn()
        resting = consumer.channel.client.connection
        broker.client.client_kill("{}:{}".format(*resting._sock.getsockname()))
        publish(broker.url, "a", 1)
        assert consumer.receive(1) == [1]


def test_a_redis_that_refuses_is_asked_again(broker: RedisServer) -> None:
    publish(broker.url, "a", 1)
    with consuming(broker.url) as consumer:
        broker.client.set("unacked", "of another type")
        for _ in range(3):
            consumer.turn()
        assert (consumer.messages, broker.client.llen("a")) == ([], 1)
        broker.client.delete("unacked")
        assert consumer.receive(1) == [1]


def test_a_cancelled_consumers_messages_stay_in_the_queue(broker: RedisServer) -> None:
    publish(broker.url, "a", 1, 2, 3)
    with consuming(broker.url, ["a", "b"]) as consumer:
        consumer.receive(1)  # the others are fetched, and not delivered yet
        consumer.consumer.cancel_by_queue("a")
        publish(broker.url, "b", "b")
        assert consumer.receive(2) == [1, "b"]
        consumer.until(lambda: broker.client.llen("a") == 2)
        assert held(broker) == (2, 2)


def test_one_sweep_puts_back_all_that_a_dead_worker_held(broker: RedisServer) -> None:
    count = 600
    publish(broker.url, "a", *range(count))
    with consuming(broker.url, prefetch=count) as dead:
        dead.receive(count)
        broker.client.zadd(
            "unacked_index", {text(tag): 1 for tag in broker.client.hkeys("unacked")}
        )
        with connected(broker.url) as connection:
            connection.default_channel.qos.restore_visible()
        assert (held(broker), broker.client.llen("a")) == ((0, 0), count)
        assert json.loads(broker.client.lindex("a", -1) or "")["headers"]["redelivered"]


def test_a_channel_closes_after_a_renewal_that_runs(
    broker: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the thread that keeps leases would use connections that are gone."""
    renewing, closing, closed = Event(), Event(), Event()
    seen: list[bool] = []
    publish(broker.url, "a", 1)

    def renew() -> None:
        renewing.set()
        assert closing.wait(20)
        seen.append(closed.wait(0.1))

    with consuming(broker.url, visibility_timeout=LEASE_S) as consumer:
        consumer.receive(1)
        poller = consumer.channel.connection.cycle
        monkeypatch.setattr(consumer.channel.qos, "renew", renew)
        assert renewing.wait(20)
        forget = poller.forget

        def forget_slowly(channel: Any) -> None:
            closing.set()
            forget(channel)
            closed.set()

        monkeypatch.setattr(poller, "forget", forget_slowly)
    assert seen == [False]
