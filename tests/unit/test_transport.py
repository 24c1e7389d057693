"""What `workers.transport` takes for granted of kombu, and how a worker chooses its transport."""

import hashlib
import inspect
from collections.abc import Iterator
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from kombu import transport as _transport
from kombu.transport import redis as _redis
from kombu.transport.virtual import base as _base

from tasks.celery import app as embedmill
from tasks.settings import Settings, get_settings
from workers import delivery, leases, transport

stock: Any = _redis
virtual: Any = _base
kombu_transport: Any = _transport

OURS = {
    "redis.QoS": leases.QoS,
    "redis.MultiChannelPoller": transport.Poller,
    "redis.Channel": transport.Channel,
    "redis.Transport": transport.Transport,
}
OVERRIDDEN = """
redis.QoS                   ack 1bc15a4ddf54
redis.QoS                   append 35c655f6ecc6
redis.QoS                   reject 747a02434344
redis.QoS                   restore_by_tag 58e161d81b6f
redis.QoS                   restore_unacked 8954efef014d
redis.QoS                   restore_visible d4a4a40a3eaf
redis.MultiChannelPoller    close ff21d2c71089
redis.MultiChannelPoller    get e0f960e0c328
redis.MultiChannelPoller    maybe_check_brpop_health 0dc592e46353
redis.MultiChannelPoller    maybe_restore_messages 6c267815d521
redis.MultiChannelPoller    on_poll_start 414f76caaa67
redis.MultiChannelPoller    on_readable c0d99f241607
redis.Channel               _brpop_read c42518699709
redis.Channel               _brpop_start 06723d707ddf
redis.Channel               _connparams e9a4295085a8
redis.Channel               _create_client dae92bc4075d
redis.Channel               _disconnect_pools db50da048a22
redis.Channel               _on_connection_disconnect 9eab3394f78b
redis.Channel               _poll_error 2c941c0124b9
redis.Channel               basic_consume 34e0da85e689
redis.Channel               close 101e9b9cdad4
redis.Transport             register_with_event_loop 4b835642e4a9
"""
RELIED_ON = """
redis.QoS                   pipe_or_acquire ad7f549d96c8
redis.QoS                   _remove_from_indices 980a109d54ad
redis.MultiChannelPoller    discard 07516a1a571d
redis.MultiChannelPoller    _register 327dc991dcc1
redis.MultiChannelPoller    _client_registered a16964c3e3d2
redis.MultiChannelPoller    _register_BRPOP 85724582464a
redis.MultiChannelPoller    _register_LISTEN 8329d648d397
redis.MultiChannelPoller    on_poll_init 0a605e782492
redis.MultiChannelPoller    handle_event a96a90b9df4b
redis.Channel               __init__ f189bdebe243
redis.Channel               _after_fork 42364ec5b4b1
redis.Channel               _do_restore_message 8b430df94e45
redis.Channel               basic_cancel d2e3a03a48d2
redis.Channel               _flush_brpop_reauth bb4930b4fd3c
redis.Channel               _q_for_pri f3997660680d
redis.Channel               _close_clients 0e15da1c9ab7
redis.Channel               conn_or_acquire 25883caca6c4
redis.Transport             __init__ 4fc30e8fa54d
redis.Transport             on_readable 27a1038f2518
virtual.QoS                 __init__ 86388d33d7d6
virtual.QoS                 can_consume 787f80092f8d
virtual.QoS                 can_consume_max_estimate 936d3958266c
virtual.QoS                 append b388f0cd6485
virtual.QoS                 _flush 33e6483a6075
virtual.QoS                 ack 0714292b916f
virtual.QoS                 restore_unacked_once c81f3d0fb29b
virtual.Channel             basic_consume 0fec96269493
virtual.Channel             basic_cancel 1beb5cf96c9a
virtual.Channel             _lookup 82b0e60149b5
virtual.Channel             close 26368e1cadfc
virtual.Channel             _get_message_priority 07faea72a3d7
virtual.Transport           close_channel dc17d64611ab
virtual.Transport           close_connection e16eb2eabe26
virtual.Transport           drain_events dc55900aa0d2
virtual.Transport           _deliver 799e242f3ec5
"""


def rows(table: str) -> list[tuple[str, str, str]]:
    found = [line.split() for line in table.splitlines() if line]
    return [(owner, name, digest) for owner, name, digest in found]


def home(path: str) -> Any:
    module, _, name = path.partition(".")
    return getattr(stock if module == "redis" else virtual, name)


@pytest.mark.parametrize(("owner", "name", "digest"), rows(OVERRIDDEN + RELIED_ON))
def test_kombu_is_the_one_this_was_written_for(owner: str, name: str, digest: str) -> None:
    source = inspect.getsource(vars(home(owner))[name])
    assert hashlib.sha256(source.encode()).hexdigest()[:12] == digest, (
        f"kombu's {owner}.{name} has changed: read it again beside workers/transport.py and "
        "workers/leases.py, run tests/acceptance/test_delivery_kills.py, then note its new digest"
    )


def test_what_is_overridden_is_listed() -> None:
    """A name of ours that a new kombu begins to use shows up here, too."""
    shared = {
        (owner, name)
        for owner, ours in OURS.items()
        for name in vars(ours)
        if hasattr(home(owner), name) and not name.startswith("__") and name not in NESTED
    }
    assert shared == {(owner, name) for owner, name, _ in rows(OVERRIDDEN)}


NESTED = {"QoS", "Channel"}
"""Classes in classes, which are ours by intent."""


@pytest.fixture
def qos() -> Any:
    return leases.QoS(SimpleNamespace(do_restore=False), prefetch_count=5)


def message(tag: str) -> Any:
    return SimpleNamespace(delivery_tag=tag)


def test_credit_is_what_prefetch_leaves(qos: Any) -> None:
    assert qos.credit() == 5
    assert qos.hold(message("a"))
    assert qos.hold(message("b"))
    assert not qos.hold(message("a"))
    assert qos.credit() == 3
    qos._quick_ack("a")
    assert qos.credit() == 4
    assert qos.hold(message("a"))


def test_credit_is_bounded(qos: Any) -> None:
    qos.prefetch_count = 0
    assert qos.credit() == leases.FETCH_MESSAGES
    qos.prefetch_count = 1000
    assert qos.credit() == leases.FETCH_MESSAGES


def test_celerys_own_limit_is_kept_to(qos: Any) -> None:
    qos.can_consume = lambda: True
    assert qos.credit() == 1
    qos.can_consume = lambda: False
    assert qos.credit() == 0


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """What a bootstep sees of a worker, on a Redis that does not answer."""
    from celery import Celery
    from celery.concurrency.prefork import TaskPool

    monkeypatch.setattr(delivery, "_redis_version", lambda _: None)
    settings = Settings()
    monkeypatch.setattr(delivery, "get_settings", lambda: settings)
    app = Celery(set_as_current=False)
    app.conf.broker_transport_options = {"visibility_timeout": 60, "priority_steps": [0]}
    before = dict(kombu_transport.TRANSPORT_ALIASES)
    yield SimpleNamespace(app=app, pool_cls=TaskPool)
    for scheme in delivery.SCHEMES:
        delivery._use(before[scheme])


def chosen(worker: Any) -> tuple[type, float]:
    delivery.Delivery(worker)
    timeout_s = worker.app.conf.broker_transport_options["visibility_timeout"]
    return kombu_transport.get_transport_cls("redis"), timeout_s


def test_a_worker_fetches_atomically(worker: Any) -> None:
    kombu_transport.get_transport_cls("redis")
    assert chosen(worker) == (transport.Transport, 60)
    assert kombu_transport.get_transport_cls("rediss") is transport.Transport
    assert not transport.Transport.renews_in_thread


def test_a_pool_that_runs_tasks_in_the_main_process_renews_in_a_thread(
    worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from celery.concurrency.solo import TaskPool

    monkeypatch.setattr(transport.Transport, "renews_in_thread", False)
    worker.pool_cls = TaskPool
    chosen(worker)
    assert transport.Transport.renews_in_thread


@pytest.mark.parametrize(
    ("target", "name", "value", "said"),
    [
        (delivery, "get_settings", lambda: Settings(atomic_fetch=False), "EMBED_ATOMIC_FETCH"),
        (delivery, "version", lambda _: "5.8.0", "kombu is 5.8.0"),
        (delivery, "_redis_version", lambda _: (6, 0), "Redis is 6.0"),
    ],
)
def test_otherwise_it_says_why_and_takes_kombus_own_with_long_leases(
    worker: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    target: Any,
    name: str,
    value: Any,
    said: str,
) -> None:
    monkeypatch.setattr(target, name, value)
    assert chosen(worker) == (stock.Transport, 3600)
    assert said in caplog.text


def test_what_a_dead_worker_held_runs_again_within_the_setting() -> None:
    """Its lease may have been renewed just before, and the sweep been just before its end."""
    options = embedmill.conf.broker_transport_options
    longest_s = options["visibility_timeout"] + options["unacked_restore_interval"]
    assert longest_s <= get_settings().visibility_timeout_s


def test_a_renewal_that_a_closing_channel_breaks_is_tried_again() -> None:
    """As a thread it must live on: the leases of the other channels are in its hands."""
    renewed = Event()
    failures = iter([ValueError("I/O operation on closed file.")])

    def renew() -> None:
        for error in failures:
            raise error
        renewed.set()

    keeper = leases.LeaseKeeper(renew, 0.001)
    keeper.start()
    assert renewed.wait(30)
    keeper.end()
    keeper.join(30)
    assert not keeper.is_alive()
