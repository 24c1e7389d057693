"""A received message in a worker's main process: how it shows itself, and how it ends unexecuted.

The tasks `tasks.embed` and `tasks.query` name their request classes; Celery makes one a message.
"""

import logging
from collections.abc import Mapping
from typing import Any
from weakref import ref

from celery.exceptions import InvalidTaskError, TimeLimitExceeded
from celery.worker.request import Request
from celery.worker.state import task_ready

from tasks.admission import ledger, redis_client
from tasks.documents import parse_documents, parse_options
from tasks.errors import BrokerDown, EmbedError, JobNotFound, ModelError, NoAnswer
from tasks.ledger import Call, job_key, run
from tasks.letters import write_letter
from tasks.messages import HEADER, QUERY_HEADER, VERSION, Coordinates, Outcome, PlacedDocument
from tasks.queries import ANSWERS, Answer, QueryPlace
from tasks.queries import answer as give_answers
from tasks.roster import read_number
from tasks.settings import get_settings
from tasks.submission import describe_count
from workers.arguments import name_arguments

logger = logging.getLogger(__name__)

MAX_DOCUMENTS = 100_000
"""Of one message, whoever sent it; ours hold 64 outside of workflows."""


class BatchedRequest(Request):
    """What the Batcher needs of a request: how large it is, and how to hand it to a pool child.

    It sums its arguments up as "(64 documents)". Producers that are not ours send whole texts in
    the `argsrepr` header, and `inspect` would answer with the decoded body: both would put queued
    texts into Flower and into logs.
    """

    documents: int
    """Texts in it."""
    _already_revoked: bool  # the stubs lack it

    def sum_up(self, count: int, what: str) -> None:
        """Note how many texts it has, and show that instead of them."""
        self.documents = count
        # the child logs failures with what it finds in this dictionary
        self._argsrepr = describe_count(count, what)
        self._kwargsrepr = "{}"
        self.request_dict.update(argsrepr=self._argsrepr, kwargsrepr=self._kwargsrepr)

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return len(self.body)

    def item(self) -> tuple[str, dict[str, Any], Any, str, str]:
        """What a pool child needs of it."""
        return self.id, self.request_dict, self.body, self.content_type, self.content_encoding

    def runs_as(self, result: Any) -> None:
        """Tell it its pool job, which a termination ends; Celery keeps it weakly, too."""
        self._apply_result = ref(result)

    def info(self, safe: bool = False) -> Any:  # noqa: ARG002
        """What `inspect` answers: always the safe form, also where Celery asks for the other."""
        return super().info(safe=True)

    @property
    def log_ids(self) -> dict[str, str]:
        """What a line of the log about it carries."""
        return {"task_id": str(self.id)}

    def lose(self, error: Exception) -> None:
        """The child is gone that worked on it together with others."""
        raise NotImplementedError


class EmbedRequest(BatchedRequest):
    """Documents: settled before the message is dropped, and never lost."""

    _overtaken = False
    """Revoked, but a deletion has won over some of it."""

    def __init__(self, message: Any, **options: Any) -> None:
        try:
            super().__init__(message, **options)
            self.place = self._find_place()
        except (KeyError, TypeError, ValueError, AttributeError, JobNotFound) as error:
            # anything else would look like a lost connection, and the message come back for ever
            raise InvalidTaskError(f"a message that makes no sense: {error!r}") from error
        self.sum_up(self.place["count"], "document")

    def _find_place(self) -> Coordinates:
        place = self.request_dict.get(HEADER)
        if place is None:
            # a foreign producer's message becomes a job of its own when it is claimed
            job_key(self.id)
            return Coordinates(v=VERSION, job=self.id, start=0, count=_count(self))
        start, count = int(place["start"]), int(place["count"])
        if start < 0 or not 0 < count <= MAX_DOCUMENTS:
            raise ValueError(f"{count} documents from {start}")
        return Coordinates(v=int(place["v"]), job=str(place["job"]), start=start, count=count)

    @property
    def log_ids(self) -> dict[str, str]:
        return {**super().log_ids, "job_id": self.place["job"]}

    def lose(self, error: Exception) -> None:
        """No member of a batch is to blame yet: all come back, and the ledger knows that they had
        begun, so their documents run one by one."""
        logger.warning("task %s comes back: %s", self.id, error, extra=self.log_ids)
        task_ready(self)
        self.reject(requeue=True)

    def on_failure(self, exc_info: Any, *details: Any, **options: Any) -> None:
        """Of a hard time limit `on_timeout` is told next; Celery would acknowledge it here."""
        error = exc_info.exception
        if not isinstance(getattr(error, "exc", error), TimeLimitExceeded):
            super().on_failure(exc_info, *details, **options)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """A hard time limit has killed the child. A document that was alone in its message fails;
        of several nobody knows which it was: they come back, and run one by one."""
        if soft or (self.documents == 1 and self._fail(timeout)):
            super().on_timeout(soft, timeout)
            return
        logger.warning("task %s comes back: its time limit of %s s was exceeded", self.id, timeout)
        task_ready(self)
        self.reject(requeue=True)

    def _fail(self, timeout: float) -> bool:
        """Before Celery acknowledges it; whether that could be settled. Not what a deletion has
        overtaken: what may have been written of it has to go, when it comes back."""
        error = ModelError(f"the time limit of {timeout} s was exceeded", code="time_limit")
        try:
            overtaken = run(redis_client(), self._failure(error))
        except BrokerDown as broker_error:
            logger.warning("task %s is not settled: %s", self.id, broker_error)
            return False
        return not overtaken

    def _failure(self, error: ModelError) -> Call[Mapping[int, int]]:
        """Its only document's, with the dead letter. Raises BrokerDown."""
        settings, job, start = get_settings(), self.place["job"], self.place["start"]
        named = name_arguments(self.args or (), self.kwargs or {})
        try:
            (document,) = parse_documents(named.get("documents"), settings)
            options = parse_options(named.get("collection"), named.get("on_long"), settings)
        except EmbedError:
            failed = Outcome(start, "", "failed", code=error.code, detail=error.detail)
            return ledger().settle_written(job, [failed], {}, ())
        placed = PlacedDocument(start, read_number(redis_client(), job, start, settings), document)
        outcome = Outcome(placed.index, document.id, "failed", code=error.code, detail=error.detail)
        letter = write_letter(job, placed, options, outcome)
        return ledger().settle_written(job, [outcome], {placed.index: letter}, [placed.index])

    def _announce_revoked(self, reason: str, *details: Any) -> None:
        """Settle what was revoked, expired or terminated, then let Celery acknowledge it.

        While the ledger is away it goes back to the queue instead, and is dropped next time.
        What a deletion has overtaken is executed after all: what was written of it has to go.
        """
        try:
            self._overtaken = bool(run(redis_client(), ledger().drop(self.place)))
        except BrokerDown as error:
            logger.warning("task %s was %s, but is not settled: %s", self.id, reason, error)
            self._already_revoked = True
            self.reject(requeue=True)
            return
        if self._overtaken and reason != "terminated":
            return
        if self._overtaken:
            # its child is gone: the next delivery is executed
            self._already_revoked = True
            task_ready(self)
            self.reject(requeue=True)
            return
        super()._announce_revoked(reason, *details)  # type: ignore[misc]  # the stubs lack it

    def revoked(self) -> bool:
        """Whether it is not to be executed; then it is settled, or back in the queue."""
        self._overtaken = False
        return super().revoked() and not self._overtaken


class QueryRequest(BatchedRequest):
    """A question: whoever waits for its answer asks again, so it never comes back."""

    def __init__(self, message: Any, **options: Any) -> None:
        try:
            super().__init__(message, **options)
            place = self.request_dict[QUERY_HEADER]
            self.place = QueryPlace(
                id=str(place["id"]),
                part=int(place["part"]),
                box=str(place["box"]),
                weight=int(place["weight"]),
                texts=int(place["texts"]),
            )
            if not self.place["box"].startswith(ANSWERS):
                raise ValueError(f"an answer to {self.place['box'][:64]!r}")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidTaskError(f"a query that makes no sense: {error!r}") from error
        self.sum_up(self.place["texts"], "text")

    def lose(self, error: Exception) -> None:
        """It is not tried again: it may be what the process died of."""
        logger.warning("query %s is lost: %s", self.id, error, extra=self.log_ids)
        task_ready(self)
        self._say_lost()
        self.reject(requeue=False)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        if not soft:
            self._say_lost()
        super().on_timeout(soft, timeout)

    def _say_lost(self) -> None:
        lost = NoAnswer("the process that worked on it was lost: ask again")
        answer = Answer(self.place["id"], self.place["part"], error=lost)
        try:
            run(redis_client(), give_answers([self.place], [answer], get_settings()))
        except BrokerDown as error:
            logger.warning("nobody learns that query %s is lost: %s", self.id, error)


def _count(request: Request) -> int:
    arguments, options = request.args or [], request.kwargs or {}
    documents = arguments[0] if arguments else options.get("documents", [])
    return len(documents) if isinstance(documents, list | tuple) else 1
