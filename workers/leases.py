"""What a worker's channel holds: recorded in Redis with a lease that a live process keeps renewing.

Only `workers.transport` imports it. The layout in Redis is kombu's: the hash `unacked` keeps the
messages by their tags, the sorted set `unacked_index` when each lease began. What is held by a
process that has died is put back by whoever sweeps first after the lease has ended.
"""

import logging
import threading
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from kombu.transport import redis as _redis
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps, loads

from tasks.ledger import TOTALS

logger = logging.getLogger(__name__)

stock: Any = _redis
"""kombu's Redis transport; its stubs lack most of what is overridden here."""

QUARANTINE = "embedmill:quarantine"
"""The last 1,000 messages that could not be read, newest first."""
FETCH_MESSAGES = 64
FETCH_QUERIES = 16
"""Queries that a worker holds at most: few, as another worker may be idle."""
SWEEP_MESSAGES = 2048
"""Put back at once: all that a dead worker of 32 children has held. It takes half a second."""
RENEWALS = 6
"""Renewals within a lease: some may fail and the lease still holds."""
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError)
"""What kombu raises for a message that is not one."""


def load_script(name: str) -> str:
    """A Lua script of this package. Sent whole with every call, so that no restart forgets it."""
    folder = files("workers") / "scripts"
    return "\n".join((folder / f"{part}.lua").read_text() for part in ("prelude", name))


RESTORE = load_script("restore")
EXPIRED = load_script("expired")
RENEW = load_script("renew")
SET_ASIDE = load_script("quarantine")


class QoS(stock.QoS):  # type: ignore[misc]
    """The messages of one channel that are fetched and not settled.

    No method raises because Redis is away: what could not be said to it is said with the next
    renewal, or the lease ends and the message is delivered again.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._unsaid: set[str] = set()
        self._queries: set[str] = set()

    def query_credit(self) -> int:
        """Queries that may be fetched now, however many other messages are held."""
        return max(FETCH_QUERIES - len(self._queries), 0)

    def credit(self) -> int:
        """Messages that may be fetched now."""
        if not self.can_consume():
            return 0
        if "can_consume" in vars(self):  # Celery's --disable-prefetch counts in its own way
            return 1
        return int(min(self.can_consume_max_estimate() or FETCH_MESSAGES, FETCH_MESSAGES))

    def hold(self, message: Any, *, is_query: bool = False) -> bool:
        """Count a message as held that the fetch has recorded.

        False when this channel holds it already: after a stall it was put back by another worker,
        and came back here while it is still worked on.
        """
        self._flush()
        if message.delivery_tag in self._delivered:
            return False
        self._quick_append(message.delivery_tag, message)
        if is_query:
            self._queries.add(message.delivery_tag)
        return True

    def append(self, message: Any, delivery_tag: str) -> None:
        """Record a message that was not fetched by `Channel`, such as one from `basic_get`."""
        if delivery_tag not in self._delivered or delivery_tag in self._dirty:
            super().append(message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        self._forget(delivery_tag)
        try:
            self._remove_from_indices(delivery_tag).execute()
        except self._errors as error:
            self._unsaid.add(delivery_tag)
            logger.warning("message %s is settled, but Redis is away: %s", delivery_tag, error)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Drop the message, or put it at the back of its queue."""
        if not requeue:
            self.ack(delivery_tag)
            return
        self._forget(delivery_tag)  # first: it may be fetched again before this returns
        if self.channel.closed:
            return  # it has been put back, or its lease ends
        try:
            self.restore_by_tag(delivery_tag, leftmost=True)
        except self._errors as error:
            logger.warning("message %s comes back when its lease ends: %s", delivery_tag, error)

    def restore_unacked(self, client: Any = None) -> None:
        """Put everything back to the front of its queue, in the order it was fetched in."""
        self._flush()
        tags = list(reversed(self._delivered))
        try:
            for tag in tags:
                self.restore_by_tag(tag, client)
        except self._errors as error:
            logger.warning("messages of this channel come back when their lease ends: %s", error)
        self._delivered.clear()
        self._queries.clear()

    def restore_visible(self, start: int = 0, num: int | None = None, interval: int = 1) -> None:  # noqa: ARG002
        """Put back what processes held that have died: messages whose lease has ended."""
        try:
            with self.channel.conn_or_acquire() as client:
                tags = client.eval(EXPIRED, 1, self._index, self.visibility_timeout, SWEEP_MESSAGES)
                count = sum(
                    self.restore_by_tag(bytes_to_str(tag), client, expired_only=True)
                    for tag in reversed(tags)
                )
        except self._errors as error:
            logger.warning("could not look for messages of dead workers: %s", error)
            return
        if count:
            logger.warning("%d messages whose worker has gone are delivered again", count)

    def restore_by_tag(
        self, tag: str, client: Any = None, leftmost: bool = False, expired_only: bool = False
    ) -> int:
        """Put one message back, marked as redelivered. Returns 1, or 0 when it is not held."""
        with self.channel.conn_or_acquire(client) as commands:
            entry = commands.hget(self.unacked_key, tag)
            try:
                message = _mark_redelivered(entry) if entry else None
            except UNREADABLE as error:
                self.set_aside(tag, entry, error)
                return 0
            lists, payload = self._address(*message) if message else ([], "")
            keys = [self._held, self._index, *lists]
            end = "back" if leftmost else "front"
            timeout = self.visibility_timeout if expired_only else ""
            return int(commands.eval(RESTORE, len(keys), *keys, tag, end, timeout, payload))

    def set_aside(self, tag: str, item: Any, error: Exception) -> None:
        """Move a message to the quarantine."""
        logger.error("message %s cannot be read and is in %s: %r", tag, QUARANTINE, error)
        keys = [self._held, self._index, *map(self.channel.prefixed, (QUARANTINE, TOTALS))]
        with self.channel.conn_or_acquire() as client:
            client.eval(SET_ASIDE, len(keys), *keys, tag, item)

    def renew(self) -> None:
        """Begin all leases anew, and say what could not be said before."""
        tags = [tag for tag in list(self._delivered) if tag not in self._dirty]
        try:
            for tag in tuple(self._unsaid):
                self._remove_from_indices(tag).execute()
                self._unsaid.discard(tag)
            if tags:
                with self.channel.conn_or_acquire() as client:
                    client.eval(RENEW, 1, self._index, *tags)
        except self._errors as error:
            logger.warning("could not renew the leases of %d messages: %s", len(tags), error)

    def _forget(self, delivery_tag: str) -> None:
        self._quick_ack(delivery_tag)
        self._queries.discard(delivery_tag)

    def _address(
        self, payload: dict[str, Any], exchange: str, routing_key: str
    ) -> tuple[list[str], str]:
        """The keys of the lists that a message goes back to, and what goes there."""
        channel = self.channel
        priority = channel._get_message_priority(payload, reverse=False)
        # kombu drops what has no binding; the name of the queue is the best guess then
        queues = channel._lookup(exchange, routing_key) or [routing_key]
        return [channel.list_key(queue, priority) for queue in queues], dumps(payload)

    @property
    def _errors(self) -> tuple[type[Exception], ...]:
        """Redis is away, or refuses."""
        return (*self.channel.connection_errors, self.channel.ResponseError)

    @property
    def _held(self) -> str:
        return str(self.channel.prefixed(self.unacked_key))

    @property
    def _index(self) -> str:
        return str(self.channel.prefixed(self.unacked_index_key))


def _mark_redelivered(entry: Any) -> tuple[dict[str, Any], str, str]:
    """A recorded message, its exchange and its routing key."""
    payload, exchange, routing_key = loads(bytes_to_str(entry))
    if "headers" in payload:
        payload["headers"]["redelivered"] = True
        payload["properties"]["delivery_info"]["redelivered"] = True
    return payload, exchange, routing_key


class LeaseKeeper(threading.Thread):
    """Renews from a thread of its own, where the consuming thread may be busy with a task."""

    def __init__(self, renew: Callable[[], None], interval_s: float) -> None:
        super().__init__(name="embedmill-leases", daemon=True)
        self._renew, self._interval_s = renew, interval_s
        self._ended = threading.Event()

    def run(self) -> None:
        """A channel that is closed in the middle of a renewal fails it in any way it can: its
        sockets and buffers go while this thread reads. The leases of the others go on."""
        while not self._ended.wait(self._interval_s):
            try:
                self._renew()
            except Exception:
                if not self._ended.is_set():
                    logger.warning("leases were not renewed; the next try is soon", exc_info=True)

    def end(self) -> None:
        """Returns at once."""
        self._ended.set()
