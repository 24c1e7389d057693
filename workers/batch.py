"""The child's half of batching: several messages in one pass, then Celery's tracer for each.

`workers.batching` sends batches here from a worker's main process.
"""

import logging
import time
from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from celery.app import trace
from celery.exceptions import Reject
from kombu.serialization import loads

from tasks.errors import BrokerDown, EmbedError
from tasks.logs import batch
from tasks.messages import HEADER
from tasks.results import Summary
from workers.arguments import name_arguments
from workers.execution import Delivery, execute, read_delivery

logger = logging.getLogger(__name__)

Item = tuple[str, dict[str, Any], Any, str, str]
"""A message on its way to a child: id, request, body, content type, content encoding."""
Result = tuple[int, Any, float]
"""What Celery's tracer answers: failed, result or error, runtime in seconds."""

_ready: dict[str, deque[Summary | Exception]] = defaultdict(deque)
"""By task id; two messages of a batch may have the same one."""


def trace_batch(task_name: str, items: Sequence[Item]) -> list[Result]:
    """Execute all, then let Celery's tracer finish each: results, events, links and chords."""
    with batch(uuid4().hex[:12]):
        return _trace_batch(task_name, items)


def _trace_batch(task_name: str, items: Sequence[Item]) -> list[Result]:
    started = time.monotonic()
    bodies = [decode_item(item) for item in items]
    deliveries = [_read(item, body) for item, body in zip(items, bodies, strict=True)]
    valid = [delivery for delivery in deliveries if isinstance(delivery, Delivery)]
    executed = iter(_execute(valid))
    for item, delivery in zip(items, deliveries, strict=True):
        result = next(executed) if isinstance(delivery, Delivery) else delivery
        _ready[item[0]].append(result)
    runtime_s = time.monotonic() - started
    try:
        return [
            finish_item(task_name, item, body, runtime_s)
            for item, body in zip(items, bodies, strict=True)
        ]
    finally:
        _ready.clear()


def _execute(deliveries: Sequence[Delivery]) -> Sequence[Summary | Exception]:
    try:
        return execute(deliveries)
    # A bug of ours must not send the messages round for ever: they fail, and the audit settles
    # what of them is still open.
    except Exception as error:
        logger.exception("a batch of %d messages failed", len(deliveries))
        return [error] * len(deliveries)


def take_result(task_id: str | None) -> Summary | Exception | None:
    """What a batch has made of this task already."""
    results = _ready.get(task_id or "")
    return results.popleft() if results else None


def decode_item(item: Item) -> Any:
    """Arguments, keyword arguments and options of a message."""
    _, _, body, content_type, content_encoding = item
    _, accept, _ = trace._localized  # type: ignore[attr-defined]  # as fast_trace_task does
    return loads(body, content_type, content_encoding, accept=accept)


def _read(item: Item, body: Any) -> Delivery | Exception:
    try:
        args, kwargs, _ = body
        named = name_arguments(args, kwargs)
        return read_delivery(
            item[0],
            item[1].get(HEADER),
            named.get("documents"),
            named.get("collection"),
            named.get("on_long"),
        )
    except BrokerDown as error:
        return Reject(str(error), requeue=True)
    except (EmbedError, TypeError, ValueError) as error:
        return error


def finish_item(task_name: str, item: Item, body: Any, runtime_s: float) -> Result:
    """Let Celery's tracer do all that is left to do for a message that has been executed."""
    task_id, request, *_ = item
    # the tracer gets no texts: their task knows by that that it was executed in a batch
    emptied: Any = (([],), {}, body[2])
    failed, value, own_s = trace.fast_trace_task(task_name, task_id, request, emptied, "", "")
    return failed, value, runtime_s + (own_s or 0.0)  # a rejected task has none
