"""How tasks get into the queue from Python: through the ledger, whoever publishes them.

`embed.delay`, signatures in chains and groups, retries and `app.send_task` all end in
`AMQP.send_task_message`; there a message of our task becomes one accept call, which counts it and
enqueues it in the same step. Other tasks go the stock way. Used by `tasks.celery` only.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from functools import cache
from typing import Any

import orjson
import redis
from celery.app.amqp import AMQP

from tasks.broker import connect, redis_errors
from tasks.documents import parse_documents, parse_options
from tasks.ledger import Ledger, Submission, run
from tasks.messages import HEADER, QUEUE, TASK_NAME, Coordinates
from tasks.settings import get_settings
from tasks.submission import arguments_repr, digest_contents, envelope, slice_job

_gathered: ContextVar[list[Submission] | None] = ContextVar("_gathered", default=None)


@cache
def ledger() -> Ledger:
    """This process' ledger."""
    return Ledger(get_settings())


@cache
def redis_client() -> redis.Redis:
    """This process' connections; redis-py opens new ones after a fork by itself."""
    return connect(get_settings())


def require_broker() -> None:
    """Raise BrokerDown at once: Celery's result store would try for 20 s, and say less."""
    with redis_errors(get_settings().broker_url):
        redis_client().ping()


class AdmittingAMQP(AMQP):
    """Celery's message sending, with an admission for our task."""

    def _create_task_sender(self) -> Any:
        send_stock = super()._create_task_sender()  # type: ignore[misc]  # celery-types lacks it

        def send_task_message(producer: Any, name: str, message: Any, **options: Any) -> Any:
            if name != TASK_NAME:
                return send_stock(producer, name, message, **options)
            submission = self._submission(message, options)
            gathering = _gathered.get()
            if gathering is not None:
                gathering.append(submission)
                return None
            mode = "again" if message.headers.get("retries") else accept_mode(self.app)
            return run(redis_client(), ledger().accept(submission, mode=mode))

        return send_task_message

    def _submission(self, message: Any, options: dict[str, Any]) -> Submission:
        settings = get_settings()
        (raw, *rest), kwargs, embedded = message.body
        named = dict(zip(("collection", "on_long"), rest, strict=False)) | kwargs
        choice = parse_options(named.get("collection"), named.get("on_long"), settings)
        headers = message.headers
        headers.update(options.get("headers") or {})
        if HEADER in headers:
            place: Coordinates = headers[HEADER]
            documents, encoded = raw, [orjson.dumps(document) for document in raw]
        else:
            (part,) = slice_job(headers["id"], parse_documents(raw, settings), split=False)
            place, documents, encoded = part.place, part.documents, list(part.encoded)
        headers[HEADER] = place
        headers["argsrepr"], headers["kwargsrepr"] = arguments_repr(len(documents)), "{}"
        body = (
            (documents,),
            {"collection": choice.collection, "on_long": str(choice.on_long)},
            embedded,
        )
        routing_key = _routing_key(options)
        packed = envelope(
            message._replace(body=body), routing_key, priority=options.get("priority") or 0
        )
        ids = [document["id"] for document in documents]
        return Submission(
            job_id=place["job"],
            ids=ids,
            sizes=list(map(len, encoded)),
            contents=digest_contents(encoded, choice),
            envelopes=[packed],
            collection=choice.collection,
            on_long=choice.on_long,
            queue=routing_key,
            due_at=_due_at(headers.get("eta")),
        )


@contextmanager
def gathered() -> Iterator[list[Submission]]:
    """Collect what is sent inside instead of sending it, to accept it as one job."""
    submissions: list[Submission] = []
    token = _gathered.set(submissions)
    try:
        yield submissions
    finally:
        _gathered.reset(token)


def accept_mode(app: Any) -> str:
    """Inside a worker work is counted but never refused: a link of a chain that is refused would
    be dropped with its finished parent."""
    return "forced" if app.current_worker_task else "limited"


def accept_together(submissions: list[Submission], mode: str) -> None:
    """One job from the messages of one: all or nothing. Raises QueueFull, BrokerDown."""
    first = submissions[0]
    whole = Submission(
        first.job_id,
        [document_id for part in submissions for document_id in part.ids],
        [size for part in submissions for size in part.sizes],
        [packed for part in submissions for packed in part.envelopes],
        first.collection,
        first.on_long,
        first.queue,
        due_at=first.due_at,
        contents=[name for part in submissions for name in part.contents],
    )
    run(redis_client(), ledger().accept(whole, mode=mode))


def _due_at(eta: str | None) -> float:
    return datetime.fromisoformat(eta).timestamp() if eta else 0.0


def _routing_key(options: dict[str, Any]) -> str:
    queue = options.get("queue")
    return getattr(queue, "name", queue) or options.get("routing_key") or QUEUE
