"""The ledger: what was accepted, what became of it, and how much is outstanding. All in Redis.

Any package may import it. Every change is one script, so it happens wholly or not at all:

    accept -> claim -> settle           the way of a document
              cancel -> sweep           the way out before it has started

A document is outstanding exactly as long as its index is a field of `embedmill:job:<id>:open`; the
script that removes the field is the one that counts the outcome. A method of `Ledger` describes one
script call; `run` and `run_async` perform it on a connection of either kind.
"""

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Generic, TypeVar
from uuid import uuid4

import orjson
import redis
import redis.asyncio
from redis.exceptions import NoScriptError

from tasks.broker import redis_errors, refusal
from tasks.claims import Claim, read_claim, read_overtaken
from tasks.drain import drain_rate, retry_after_s
from tasks.errors import (
    EmbedError,
    JobNotFound,
    LetterNotFound,
    ModelMismatch,
    QueueFull,
    RequestRepeated,
)
from tasks.marks import Mark
from tasks.messages import HEADER, Coordinates, Outcome
from tasks.presence import COLLECTIONS
from tasks.settings import Settings

T = TypeVar("T")
Value = str | bytes | int | float

SWEEP_PAGE = 256

OUTSTANDING = "embedmill:outstanding"
TOTALS = "embedmill:totals"
JOBS = "embedmill:jobs"
DRAIN = "embedmill:drain"
SEQUENCE = "embedmill:sequence"
JOB_PARTS = ("open", "ids", "endings", "errors")
"""What lives beside a job's hash, under its key and a colon."""
DEAD = "embedmill:dead"
DEAD_BYTES = "embedmill:dead:bytes"


class Script:
    """A Lua script of this package, with the prelude before it."""

    def __init__(self, name: str) -> None:
        folder = files("tasks") / "scripts"
        sources = (folder / "prelude.lua", folder / f"{name}.lua")
        self.source = "\n".join(part.read_text() for part in sources)
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()


ACCEPT, CLAIM, SETTLE, CANCEL, SWEEP, RELEASE, MARK = map(
    Script, ("accept", "claim", "settle", "cancel", "sweep", "release", "mark")
)


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One script call and how its reply is read."""

    script: Script
    keys: Sequence[str]
    args: Sequence[Value]
    read: Callable[[Any], T]
    url: str = field(repr=False)


def run(client: redis.Redis, call: Call[T]) -> T:
    """Perform the call. Raises BrokerDown, and what the call's reply stands for."""
    arguments = [*call.keys, *call.args]
    with redis_errors(call.url):
        try:
            reply = client.evalsha(call.script.sha, len(call.keys), *arguments)
        except NoScriptError:
            reply = client.eval(call.script.source, len(call.keys), *arguments)
    return call.read(reply)


async def run_async(client: "redis.asyncio.Redis", call: Call[T]) -> T:
    """Perform the call on an event loop. Raises BrokerDown, and what its reply stands for."""
    arguments = [*call.keys, *call.args]
    with redis_errors(call.url):
        try:
            reply = await client.evalsha(call.script.sha, len(call.keys), *arguments)
        except NoScriptError:
            reply = await client.eval(call.script.source, len(call.keys), *arguments)
    return call.read(reply)


@dataclass(frozen=True, slots=True)
class Submission:
    """What one accept takes in: a job's messages, and the ids and bytes of its documents."""

    job_id: str
    ids: Sequence[str]
    sizes: Sequence[int]
    envelopes: Sequence[bytes]
    collection: str
    on_long: str
    queue: str
    contents: Sequence[str] = ()
    """A digest of what each document carries; without them all differ from all others."""
    delete: bool = False
    """Its documents are to be deleted."""
    due_at: float = 0.0
    """When it may begin, in Unix seconds; what is past means now."""
    letters: Sequence[str] = ()
    """The dead letters that it replays; they go in the step that accepts it."""
    numbers: Sequence[int] = ()
    """The acceptance numbers that the documents of these letters keep."""
    mark: Mark | None = None
    """What it leaves for its repetitions."""


class Ledger:
    """Describes the calls, within the limits of the settings."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._model = settings.model_name

    def accept(self, submission: Submission, *, mode: str = "limited") -> Call[int]:
        """Open the job and enqueue its messages; the reply is its first acceptance number.

        `mode`: `limited` keeps to the limits, `forced` counts without refusing (for work that
        is made inside a worker), `again` enqueues another message of a job that may exist.
        The job that exists already is left as it is: accepting twice counts once.
        Raises QueueFull, ModelMismatch, RequestRepeated, LetterNotFound, BrokerDown.
        """
        return self._accept([submission], mode, _only)

    def accept_all(self, submissions: Sequence[Submission]) -> Call[list[int | EmbedError]]:
        """The same for several jobs in one round trip, in their order.

        Each job is accepted wholly or not at all, and has its own answer: its first acceptance
        number, or the error that `accept` would have raised. Raises BrokerDown, for all.
        """
        return self._accept(submissions, "limited", list)

    def _accept(
        self,
        submissions: Sequence[Submission],
        mode: str,
        read: Callable[[Iterator[int | EmbedError]], T],
    ) -> Call[T]:
        limits = self._settings
        keys = [OUTSTANDING, TOTALS, JOBS, DRAIN, SEQUENCE, COLLECTIONS, DEAD, DEAD_BYTES]
        args: list[Value] = [mode, limits.queue_limit, limits.queue_bytes, self._model]
        for submission in submissions:
            keys += (job_key(submission.job_id), submission.queue)
            args += (_job(submission), orjson.dumps(submission.ids), *submission.envelopes)
        return self._call(ACCEPT, keys, args, _AcceptReply(limits, submissions, read))

    def claim(self, place: Coordinates, ids: Sequence[str] = ()) -> Call[Claim]:
        """Which documents of a message still want doing; marks them as started.

        `ids` are those of all its documents; without them none is uncontested.
        """
        job = job_key(place["job"])
        keys = [job, f"{job}:open", f"{job}:endings", TOTALS]
        return self._call(CLAIM, keys, [place["start"], place["count"], *ids], read_claim)

    def release(self, place: Coordinates) -> Call[int]:
        """A claimed message goes back without blame: its next claim does not suspect it."""
        job = job_key(place["job"])
        keys = [job, f"{job}:open", TOTALS]
        return self._call(RELEASE, keys, [place["start"], place["count"]], int)

    def mark(self, job_id: str, index: int) -> Call[int]:
        """Count a try of a document that runs alone, before it begins.

        The reply is how many tries before ended with their process.
        """
        return self._call(MARK, [job_key(job_id)], [index, 1, str(uuid4())], int)

    def unmark(self, job_id: str, index: int) -> Call[int]:
        """A marked try ended without outcome and without blame, as when the store is away."""
        return self._call(MARK, [job_key(job_id)], [index, -1, str(uuid4())], int)

    def fail(self, place: Coordinates, error: EmbedError) -> Call[int]:
        """Settle what is left of a message as failed: it cannot be worked on at all."""
        indices = range(place["start"], place["start"] + place["count"])
        failed = [
            Outcome(index, "", "failed", code=error.code, detail=error.detail) for index in indices
        ]
        return self.settle(place["job"], failed)

    def drop(self, place: Coordinates) -> Call[Mapping[int, int]]:
        """Settle what is left of a message as cancelled: it was revoked, or has expired.

        The reply is that of `settle_written`: an earlier delivery may have left something.
        """
        indices = range(place["start"], place["start"] + place["count"])
        outcomes = [Outcome(index, "", "cancelled") for index in indices]
        return self.settle_written(place["job"], outcomes, {}, indices)

    def settle(
        self, job_id: str, outcomes: Sequence[Outcome], letters: Mapping[int, bytes] | None = None
    ) -> Call[int]:
        """Record outcomes; the reply is how many were the first of their document.

        `letters` are the dead letters of failed documents, by their index.
        """
        return self._settle(job_id, outcomes, letters or {}, (), lambda reply: int(reply[0]))

    def settle_written(
        self,
        job_id: str,
        outcomes: Sequence[Outcome],
        letters: Mapping[int, bytes],
        written: Collection[int],
    ) -> Call[Mapping[int, int]]:
        """The same where something may have been written of these indices.

        The reply says which of them are not settled because a deletion was accepted later, and its
        number: what is older has to go from the store first.
        """
        return self._settle(
            job_id, outcomes, letters, written, lambda reply: read_overtaken(reply[1])
        )

    def _settle(
        self,
        job_id: str,
        outcomes: Sequence[Outcome],
        dead: Mapping[int, bytes],
        written: Collection[int],
        read: Callable[[Any], T],
    ) -> Call[T]:
        rows = [
            [
                outcome.index,
                outcome.state,
                outcome.points,
                int(outcome.truncated),
                _error_row(outcome) if outcome.state == "failed" or outcome.code else "",
                dead.get(outcome.index, b"").decode(),
                outcome.id,
                int(outcome.unchanged),
                int(outcome.index in written),
            ]
            for outcome in outcomes
        ]
        settings = self._settings
        args: list[Value] = [
            job_id,
            settings.job_ttl_s,
            orjson.dumps(rows),
            settings.dead_letters,
            settings.dead_letter_bytes,
        ]
        return self._call(SETTLE, _settle_keys(job_id), args, read)

    def cancel(self, job_id: str) -> Call[int]:
        """Settle all that has not started as cancelled; the reply counts it, -1: no such job."""
        args: list[Value] = [job_id, self._settings.job_ttl_s]
        return self._call(CANCEL, _settle_keys(job_id), args, int)

    def sweep(self, job_id: str, queue: str, page: int) -> Call[int]:
        """Remove the job's dead messages from a page of the queue; the reply counts them."""
        start = page * SWEEP_PAGE
        args: list[Value] = [job_id, HEADER, start, start + SWEEP_PAGE - 1]
        return self._call(SWEEP, [queue, f"{job_key(job_id)}:open"], args, int)

    def _call(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[Value],
        read: Callable[[Any], T],
    ) -> Call[T]:
        return Call(script, keys, args, read, self._settings.broker_url)


def sweep_pages(waiting: int) -> range:
    """The pages of a queue of `waiting` messages, oldest first: removing from one then moves no
    message of a page that is still to come."""
    return range(waiting // SWEEP_PAGE, -1, -1)


def job_key(job_id: str) -> str:
    """The key of a job's hash; its open documents and errors live beside it.

    Raises JobNotFound for what is no id of a job, but the name of such a neighbour.
    """
    if job_id.endswith(tuple(f":{part}" for part in JOB_PARTS)):
        raise JobNotFound(f"there is no job {job_id[:64]!r}")
    return f"embedmill:job:{job_id}"


def _settle_keys(job_id: str) -> list[str]:
    job = job_key(job_id)
    own = [f"{job}:{part}" for part in JOB_PARTS]
    return [job, *own, OUTSTANDING, TOTALS, JOBS, DRAIN, DEAD, DEAD_BYTES]


def _error_row(outcome: Outcome) -> str:
    row = {"index": outcome.index, "id": outcome.id, "code": outcome.code}
    return orjson.dumps(row | {"detail": outcome.detail[:1000]}).decode()


def _job(submission: Submission) -> bytes:
    fields: dict[str, Any] = {
        "id": submission.job_id,
        "collection": submission.collection,
        "on_long": submission.on_long,
        "due": submission.due_at,
        "sizes": submission.sizes,
        "contents": submission.contents,
        "delete": submission.delete,
        "messages": len(submission.envelopes),
    }
    if submission.letters:
        numbers = orjson.dumps(submission.numbers).decode()
        fields |= {"letters": submission.letters, "numbers": numbers}
    if submission.mark:
        fields["mark"] = submission.mark.to_fields()
    return orjson.dumps(fields)


def _only(answers: Iterator[int | EmbedError]) -> int:
    (answer,) = answers
    if isinstance(answer, EmbedError):
        raise answer
    return answer


@dataclass(frozen=True, slots=True)
class _AcceptReply(Generic[T]):
    """Reads the script's JSON array: an answer for each submission."""

    settings: Settings
    submissions: Sequence[Submission]
    read: Callable[[Iterator[int | EmbedError]], T]

    def __call__(self, reply: Any) -> T:
        return self.read(map(self._answer, self.submissions, orjson.loads(reply)))

    def _answer(self, submission: Submission, answer: list[Any]) -> int | EmbedError:
        match answer:
            case ["accepted" | "exists", first]:
                return int(first)
            case ["full", texts, _, now, *drain]:
                return self._full(submission, texts, now, [float(value or 0) for value in drain])
            case ["error", message]:
                return refusal(self.settings.broker_url, message)
            case other:
                return self._other(submission, other)

    def _other(self, submission: Submission, answer: list[Any]) -> EmbedError:
        match answer:
            case ["mismatch", maker]:
                return ModelMismatch(
                    f"collection {submission.collection!r} was made by the model "
                    f"{maker!r}, not by {self.settings.model_name!r}"
                )
            case ["marked", found]:
                return RequestRepeated("it was accepted before", found=found)
            case ["gone", letter]:
                return LetterNotFound(
                    f"dead letter {letter}, of the same job, was replayed or purged meanwhile"
                )
            case other:
                return EmbedError(f"the ledger answered {other!r}")

    def _full(
        self, submission: Submission, texts_after: int, now: float, drain: list[float]
    ) -> QueueFull:
        rate, at, since = drain
        limit, texts = self.settings.queue_limit, len(submission.sizes)
        excess = max(texts_after - limit, texts)
        return QueueFull(
            f"the queue is full: {texts_after - texts} texts are outstanding, "
            f"the limit is {limit} texts and {self.settings.queue_bytes} bytes",
            retry_after_s=retry_after_s(excess, drain_rate(rate, at, since, now)),
        )
