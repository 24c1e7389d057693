"""A kombu consumer for tests, without Celery and without an event loop."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from kombu import Connection, Consumer, Exchange, Queue
from kombu.transport.redis import Transport as StockTransport

from workers.transport import Transport

LEASE_S = 0.6


class Consuming:
    """One channel that consumes; `messages` are those it was given."""

    def __init__(self, connection: Any, consumer: Any) -> None:
        self.connection, self.consumer = connection, consumer
        self.messages: list[Any] = []
        consumer.callbacks = [lambda _, message: self.messages.append(message)]

    @property
    def bodies(self) -> list[Any]:
        return [message.decode() for message in self.messages]

    @property
    def channel(self) -> Any:
        return self.consumer.channel

    def turn(self, timeout_s: float = 0.05) -> None:
        """Let kombu do what there is to do."""
        with suppress(TimeoutError):
            self.connection.drain_events(timeout=timeout_s)

    def until(self, condition: Callable[[], object], timeout_s: float = 20) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"received {self.bodies}"
            self.turn()

    def receive(self, count: int) -> list[Any]:
        """The bodies of so many messages, in the order they came in."""
        self.until(lambda: len(self.messages) >= count)
        return self.bodies


def queue(name: str) -> Queue:
    """As Celery declares it: a direct exchange of the same name."""
    return Queue(name, Exchange(name), routing_key=name)


@contextmanager
def connected(url: str, *, stock: bool = False, **options: Any) -> Iterator[Any]:
    """A connection with this project's transport or kombu's own."""
    defaults = {"visibility_timeout": 60, "priority_steps": [0], "unacked_restore_throttle": 1}
    connection: Any = Connection(url, transport_options=defaults | options)
    connection.transport_cls = StockTransport if stock else Transport
    try:
        yield connection
    finally:
        connection.release()


@contextmanager
def consuming(
    url: str,
    names: Sequence[str] = ("a",),
    *,
    prefetch: int = 100,
    stock: bool = False,
    no_ack: bool = False,
    **options: Any,
) -> Iterator[Consuming]:
    """Consume for the block; what is unacknowledged at its end goes back."""
    with connected(url, stock=stock, **options) as connection:
        consumer: Any = Consumer(connection, [queue(name) for name in names], no_ack=no_ack)
        consumer.qos(prefetch_count=prefetch)
        found = Consuming(connection, consumer)
        consumer.consume()
        yield found


def publish(url: str, name: str, *bodies: Any, **options: Any) -> None:
    """As any producer does, through kombu's own transport."""
    with connected(url, stock=True) as connection, connection.Producer() as producer:
        for body in bodies:
            producer.publish(
                body, routing_key=name, exchange=name, declare=[queue(name)], **options
            )
