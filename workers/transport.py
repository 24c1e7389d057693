"""How messages reach a worker: kombu's Redis transport, with a fetch that cannot lose any.

`workers` installs it for `redis://` and `rediss://` in worker processes; producers and Flower keep
kombu's own, which has the same keys. A script takes messages off the queues and records them as
held in one step; waiting for a queue to have something takes nothing off it. Why, and what of
kombu this relies on: docs/decisions/0005-atomic-fetch.md.
"""

import logging
import os
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, compress
from queue import Empty
from threading import RLock
from time import monotonic
from typing import Any

import redis.exceptions
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads
from kombu.utils.scheduling import priority_cycle

from tasks.ledger import TOTALS
from tasks.messages import QUERY_QUEUE
from workers.leases import QUARANTINE, RENEWALS, UNREADABLE, LeaseKeeper, QoS, load_script, stock

logger = logging.getLogger(__name__)

FETCH = load_script("fetch")
FETCH_BYTES = 1024 * 1024
"""A fetch ends with the message that reaches this, so that it never holds up Redis or the hub."""
REST_S = 1.0
"""How long to leave a Redis alone that refuses to hand out messages: its disk is full, say."""
QUIET_S = 60.0
"""How long it has to comply until its refusal is worth a line in the log again."""
RENEWAL_S = 10.0


@dataclass(eq=False, slots=True)
class Wait:
    """A connection on which Redis answers as soon as a list has an item, or after a timeout.

    `connection` is where kombu's poller looks for the socket of what it polls.
    """

    key: str
    connection: Any
    sent_at: float | None = None

    def send(self, timeout_s: float) -> None:
        """From the end of the list to the same end: blocks like BRPOP, and moves nothing."""
        self.sent_at = monotonic()
        self.connection.send_command("BLMOVE", self.key, self.key, "RIGHT", "RIGHT", timeout_s)


class Channel(stock.Channel):  # type: ignore[misc]
    """What kombu calls BRPOP is a fetch here, sent while there is credit and something to fetch.

    When a fetch has emptied the queues, a `Wait` for each list says when to fetch again. Queries
    come first and have a credit of their own, which a worker without an idle child has not.
    """

    QoS = QoS
    takes_queries: Callable[[], bool] = staticmethod(lambda: True)
    """Whether a query that is fetched now is worked on at once; `workers.batching` knows. One that
    is not stays in Redis, where a child takes it in the middle of its pass."""
    _commands: Any = None

    def __init__(self, *args: Any, **options: Any) -> None:
        self._parameters: dict[bool, dict[str, Any]] = {}
        self._waits: dict[str, Wait] = {}
        self._inbox: deque[tuple[str, Any]] = deque()
        self._unrecorded: set[str] = set()
        self._asked: tuple[str, ...] = ()
        self._emptied: frozenset[str] = frozenset()
        self._rests_until = float("-inf")
        self._pid = os.getpid()
        super().__init__(*args, **options)
        self._connparams()  # while it can be worked out

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **options: Any) -> Any:
        if no_ack:
            self._unrecorded.add(queue)
        return super().basic_consume(queue, no_ack, *args, **options)

    def prefixed(self, key: str) -> str:
        """The key as it is called in Redis."""
        return f"{self.global_keyprefix}{key}"

    def list_key(self, queue: str, priority: int) -> str:
        """The list of a queue's messages of one priority."""
        return self.prefixed(self._q_for_pri(queue, priority))

    def deliver(self, most: int | None = None) -> bool:
        """Hand fetched messages to their consumers. Returns whether there were any."""
        delivered = 0
        while self._inbox and delivered != most:
            queue, message = self._inbox.popleft()
            delivered += 1
            if queue in self.connection._callbacks or queue in self._unrecorded:
                self.connection._deliver(message._raw, queue)
            else:  # its consumer was cancelled meanwhile
                self.qos.reject(message.delivery_tag, requeue=True)
        return delivered > 0

    def hear(self, wait: Wait) -> None:
        """Read what a waiting connection says. Raises Empty, as no message comes that way."""
        if wait.sent_at is None:  # nothing was asked: the server closes idle connections
            wait.connection.disconnect()
        elif self._read_reply(wait.connection) is not None:
            self._emptied = frozenset()
        wait.sent_at = None
        raise Empty

    def drop_overdue_waits(self) -> None:
        """Close waiting connections whose answer is overdue: the other end is gone in silence."""
        for wait in self._waits.values():
            if wait.sent_at is None or not self.health_check_interval:
                continue
            overdue_at = wait.sent_at + self._wait_s + self.health_check_interval
            sock = wait.connection._sock
            if monotonic() > overdue_at and sock and not stock._socket_readable(sock):
                logger.warning("Redis has been silent for too long; connecting again")
                wait.connection.disconnect()

    def close(self) -> None:
        self._closing = True
        if self.connection is not None:  # the first time: Celery closes channels twice
            self.connection.cycle.forget(self)
        if self._in_poll:
            with suppress(Empty, *self.connection_errors):
                self._brpop_read()
        super().close()
        self._disconnect_pools()

    def credit(self, queue: str) -> int:
        """Messages that may be fetched from this queue now."""
        if queue == QUERY_QUEUE:
            return int(self.qos.query_credit()) if self.takes_queries() else 0
        return int(self.qos.credit())

    def has_credit(self) -> bool:
        """Whether anything may be fetched."""
        return any(self.credit(queue) for queue in self.active_queues)

    def _brpop_start(self, timeout: float | None = None) -> None:  # noqa: ARG002
        cycle = self._queue_cycle.consume(len(self.active_queues))
        queues = tuple(sorted(filter(self.credit, cycle), key=lambda name: name != QUERY_QUEUE))
        if not queues or monotonic() < self._rests_until:
            return
        lists = [self.list_key(queue, step) for step in self.priority_steps for queue in queues]
        if self._emptied.issuperset(queues):
            for key in lists:
                self.connection.cycle.listen(self, self._wait_for(key))
        else:
            self._send_fetch(queues, lists)

    def _send_fetch(self, queues: tuple[str, ...], lists: Sequence[str]) -> None:
        fixed = (self.unacked_key, self.unacked_index_key, QUARANTINE, TOTALS)
        keys = [*map(self.prefixed, fixed), *lists]
        rotate = int(not isinstance(self._queue_cycle, priority_cycle))
        each = [[self.credit(queue), int(queue not in self._unrecorded)] for queue in queues]
        options = [FETCH_BYTES, len(queues), rotate, *chain.from_iterable(each)]
        self._asked = queues
        self._in_poll = self.client.connection
        self._brpop_sent_at = monotonic()
        self._in_poll.send_command("EVAL", FETCH, len(keys), *keys, *options)

    def _brpop_read(self, **_: Any) -> bool:
        try:
            self._take_in(*self._read_reply(self.client.connection))
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        most = None if self.connection.cycle.delivers_batches else 1
        if self._closing or not self.deliver(most):
            raise Empty
        return True

    def _take_in(self, emptied: Sequence[int], quarantined: int, *rows: Any) -> None:
        self._emptied = frozenset(compress(self._asked, emptied))
        if quarantined:
            logger.error("%d messages cannot be read and are in %s", quarantined, QUARANTINE)
        for number, tag, item in rows:
            queue = self._asked[(number - 1) % len(self._asked)]
            self._queue_cycle.rotate(queue)
            message = self._read(bytes_to_str(tag), item)
            if message and (queue in self._unrecorded or self._hold(queue, message)):
                self._inbox.append((queue, message))

    def _hold(self, queue: str, message: Any) -> bool:
        return bool(self.qos.hold(message, is_query=queue == QUERY_QUEUE))

    def _read(self, tag: str, item: bytes) -> Any:
        """The message, or None when it is one for Redis' parser but not for Python's."""
        try:
            message = self.Message(loads(bytes_to_str(item)), channel=self)
            if message.delivery_tag != tag:
                raise ValueError(f"its tag is {message.delivery_tag!r}")
        except UNREADABLE as error:
            self.qos.set_aside(tag, item, error)
            return None
        return message

    def _read_reply(self, connection: Any) -> Any:
        """One reply. Raises Empty when Redis refuses, connection errors when it is away."""
        try:
            return connection.read_response()
        except redis.exceptions.ReadOnlyError as error:
            connection.disconnect()
            raise redis.exceptions.ConnectionError("this Redis is a replica now") from error
        except self.ResponseError as error:
            self._rest(error)
            raise Empty from error
        except self.connection_errors:
            connection.disconnect()
            raise

    def _rest(self, error: Exception) -> None:
        """Leave Redis alone for a moment, then fetch: a full one still answers that, but refuses
        to wait, as BLMOVE could need memory."""
        if monotonic() > self._rests_until + QUIET_S:
            logger.warning("Redis refuses to hand out messages: %s", error)
        self._rests_until = monotonic() + REST_S
        self._emptied = frozenset()

    def _wait_for(self, key: str) -> Wait:
        if key not in self._waits:
            # not out of the pool, whose size does not count on one for each list
            connection = self.async_pool.connection_class(**self.async_pool.connection_kwargs)
            self._waits[key] = Wait(key, connection)
        return self._waits[key]

    @property
    def _wait_s(self) -> float:
        return float(self.brpop_timeout or 1)

    def _poll_error(self, type: Any, **options: Any) -> None:
        if isinstance(type, Wait):
            self.hear(type)
        super()._poll_error(type, **options)

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        """Kept, as what they come from is gone when a lost connection's channel is closed, while
        its messages are still to be acknowledged or put back."""
        if asynchronous not in self._parameters:
            self._parameters[asynchronous] = super()._connparams(asynchronous)
        return dict(self._parameters[asynchronous])

    def _create_client(self, asynchronous: bool = False) -> Any:
        """One client for all commands: making one costs 60 us, and each ack would make one."""
        if asynchronous:
            return super()._create_client(asynchronous=True)
        if self._commands is None:
            self._commands = super()._create_client()
        return self._commands

    def _disconnect_pools(self) -> None:
        self._commands = None
        super()._disconnect_pools()
        for wait in self._waits.values():
            wait.connection.disconnect()

    def _on_connection_disconnect(self, connection: Any) -> None:
        if os.getpid() != self._pid:
            return  # a fork's copy: the poller it would be taken from is the main process'
        for wait in self._waits.values():
            if wait.connection is connection:
                wait.sent_at = None
        super()._on_connection_disconnect(connection)


class Poller(stock.MultiChannelPoller):  # type: ignore[misc]
    """kombu's poller, which also polls `Wait`s, and keeps leases.

    A reply is read whatever the credit is: what it brings is recorded already, so no socket stays
    readable and spins the event loop.
    """

    def __init__(self, renewal_s: float) -> None:
        super().__init__()
        self.renewal_s = renewal_s
        self.delivers_batches = False
        self._swept_at = float("-inf")
        self._keeper: LeaseKeeper | None = None
        self._renewing = RLock()

    def listen(self, channel: Channel, wait: Wait) -> None:
        """See to it that an answer is outstanding."""
        if not self._client_registered(channel, wait, wait):
            wait.sent_at = None
            self._register(channel, wait, wait)
        if wait.sent_at is None:
            wait.send(channel._wait_s)

    def on_poll_start(self) -> None:
        for channel in self._channels:
            if channel.active_queues and channel.has_credit():
                self._register_BRPOP(channel)
            if channel.active_fanout_queues:
                self._register_LISTEN(channel)

    def on_readable(self, fileno: int) -> None:
        channel, source = self._fd_to_chan.get(fileno, (None, None))
        if isinstance(source, Wait):
            channel.hear(source)
        elif source == "BRPOP" and channel._in_poll:
            channel._brpop_read()
        elif source == "BRPOP":  # nothing was asked: the server closes idle connections
            channel.client.connection.disconnect()
        else:
            super().on_readable(fileno)

    def get(self, callback: Any, timeout: float | None = None) -> None:
        """One turn without an event loop; delivers one message at most. Raises Empty."""
        self.keep_leases()
        if any(channel.deliver(1) for channel in tuple(self._channels)):
            return
        super().get(callback, timeout)

    def maybe_restore_messages(self) -> None:
        for channel in self._channels:
            if channel.active_queues:
                if monotonic() - self._swept_at < 0.9 * channel.unacked_restore_interval:
                    return
                self._swept_at = monotonic()
                channel.qos.renew()  # after a stall, what is held here must not be put back
                channel.qos.restore_visible()
                return

    def maybe_check_brpop_health(self) -> None:
        super().maybe_check_brpop_health()
        for channel in self._channels:
            channel.drop_overdue_waits()

    def renew_leases(self) -> None:
        """Of all that the open channels hold."""
        for channel in tuple(self._channels):
            with self._renewing:
                if channel in self._channels and channel._qos is not None:
                    channel._qos.renew()

    def forget(self, channel: Channel) -> None:
        """It is about to close: returns when no thread uses it any more to renew."""
        with self._renewing:
            self.discard(channel)

    def keep_leases(self) -> None:
        """Renew them from a thread until the poller is closed."""
        if self._keeper is None:
            self._keeper = LeaseKeeper(self.renew_leases, self.renewal_s)
            self._keeper.start()

    def close(self) -> None:
        if self._keeper is not None:
            self._keeper.end()
        super().close()


class Transport(stock.Transport):  # type: ignore[misc]
    """kombu's Redis transport with the channel and the poller of this module."""

    Channel = Channel
    renews_in_thread = False
    """Whether tasks run in the thread of the event loop, so that its timers may come too late."""

    def __init__(self, client: Any, **options: Any) -> None:
        super().__init__(client, **options)
        timeout_s = client.transport_options.get("visibility_timeout", Channel.visibility_timeout)
        self.cycle = Poller(min(RENEWAL_S, timeout_s / RENEWALS))

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        super().register_with_event_loop(connection, loop)
        self.cycle.delivers_batches = True
        if self.renews_in_thread:
            self.cycle.keep_leases()
        else:  # Celery cancels it with the connection's other timers
            loop.call_repeatedly(self.cycle.renewal_s, self.cycle.renew_leases)
