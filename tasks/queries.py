"""Queries: texts for whose vectors, or nearest neighbours, somebody waits. For any package.

    ask -> wanted? -> answer            the way of a query
    ask -> take    -> answer            by a child that is in the middle of a pass
           leave                        whoever asked waits no more

A query is counted and enqueued by one script, as messages of bounded size. A worker asks whether it
is still wanted before any work; answers go to a list of the asking process, where they expire soon.
Nothing of it is in the ledger: a query that is lost is asked again by its client, who is told so.
"""

import base64
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypedDict
from uuid import uuid4

import orjson
import redis
from celery import Celery

from tasks.broker import redis_errors
from tasks.errors import (
    CollectionNotFound,
    EmbedError,
    EncoderBroken,
    ModelError,
    ModelMismatch,
    NoAnswer,
    StoreDown,
    StoreRejected,
    TextTooLong,
)
from tasks.ledger import Call, Script, run
from tasks.messages import (
    MESSAGE_BYTES,
    MESSAGE_DOCUMENTS,
    QUERY_HEADER,
    QUERY_QUEUE,
    QUERY_TASK_NAME,
)
from tasks.settings import Settings
from tasks.submission import cut_into_spans, describe_count, envelope

Role = Literal["query", "document"]
"""Which of the model's prompts goes before a text."""

ASKED = "embedmill:queries"
"""Queries that somebody waits for, by the moment until which: a sorted set, in Redis' time."""
WEIGHTS = "embedmill:queries:weights"
"""What each of them weighs, and all together: a hash."""
TOTAL = "total"
TAKEN = "embedmill:queries:taken:"
"""And a pool child: the places of the questions that it has taken in the middle of a pass and not
answered."""
TAKEN_MESSAGES = 16
"""Taken together at most; of texts as many as one message may have."""
ANSWERS = "embedmill:answers:"
ANSWER_TTL_S = 5
"""Seconds that an answer is kept which nobody takes: its process has died."""
WEIGHT_BYTES = 16 * 1024
"""A text counts once against the limit, and once more for each of these: the limit bounds bytes."""

ASK, WANTED, TAKE, ANSWER, LEAVE = map(Script, ("ask", "wanted", "take", "answer", "leave"))

_ERRORS: dict[str, type[EmbedError]] = {
    kind.__name__: kind
    for kind in (
        CollectionNotFound,
        EncoderBroken,
        ModelError,
        ModelMismatch,
        NoAnswer,
        StoreDown,
        StoreRejected,
        TextTooLong,
    )
}


@dataclass(frozen=True, slots=True)
class Search:
    """What to look for with a vector: the `limit` nearest points that a Qdrant filter lets pass."""

    collection: str
    limit: int
    filter: dict[str, Any] | None = None


class QueryPlace(TypedDict):
    """Which part of which query a message is: its header `QUERY_HEADER`."""

    id: str
    part: int
    box: str
    weight: int
    texts: int


@dataclass(frozen=True, slots=True)
class Question:
    """A message's share of a query: texts from `start` on, in a role, and what to do with them."""

    place: QueryPlace
    start: int
    texts: Sequence[str]
    role: Role
    search: Search | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a question: float32 vectors in base64, one after the other, and the tokens of
    its texts; or hits; or an error."""

    id: str
    part: int
    vectors: str = ""
    tokens: int = 0
    hits: Sequence[dict[str, Any]] | None = None
    error: EmbedError | None = None

    def to_json(self) -> bytes:
        row = {name: getattr(self, name) for name in ("id", "part", "vectors", "tokens", "hits")}
        if self.error is not None:
            kind = type(self.error).__name__
            known = kind if kind in _ERRORS else ModelError.__name__
            row["error"] = {"kind": known, "detail": self.error.detail, "code": self.error.code}
        return orjson.dumps(row)

    @classmethod
    def from_json(cls, data: bytes | str) -> "Answer":
        row = orjson.loads(data)
        error = row.pop("error", None)
        answer = cls(**row)
        if error is None:
            return answer
        raised = _ERRORS.get(error["kind"], ModelError)(error["detail"], code=error["code"])
        return replace(answer, error=raised)


def new_box() -> str:
    """The key of a list for the answers to one process' questions."""
    return f"{ANSWERS}{uuid4()}"


def weigh(texts: Sequence[str]) -> int:
    """What texts count against `EMBED_QUERY_LIMIT`."""
    return sum(1 + len(text) // WEIGHT_BYTES for text in texts)


def cut_query(
    texts: Sequence[str], box: str, *, role: Role = "query", search: Search | None = None
) -> list[Question]:
    """A query's questions, each of bounded size, so that several children share a large one."""
    query_id = str(uuid4())
    spans = cut_into_spans([len(text.encode()) for text in texts], MESSAGE_DOCUMENTS, MESSAGE_BYTES)
    questions = []
    for part, (start, stop) in enumerate(spans):
        own = texts[start:stop]
        place = QueryPlace(id=query_id, part=part, box=box, weight=weigh(own), texts=len(own))
        questions.append(Question(place, start, own, role, search))
    return questions


def pack(app: Celery, question: Question) -> bytes:
    """The question as a message of the task `tasks.query`; the texts are not for logs."""
    place = question.place
    arguments = (
        [list(question.texts), question.role, question.start],
        {"search": asdict(question.search)} if question.search else {},
    )
    message = app.amqp.create_task_message(
        f"{place['id']}.{place['part']}",
        QUERY_TASK_NAME,
        *arguments,
        argsrepr=describe_count(place["texts"], "text"),
        kwargsrepr="{}",
        ignore_result=True,
    )
    message.headers[QUERY_HEADER] = place
    return envelope(message, QUERY_QUEUE)


def unpack(message: bytes) -> Question:
    """A packed question. Raises ValueError, TypeError or KeyError for anything else."""
    row = orjson.loads(message)
    (texts, role, start), options, _ = orjson.loads(base64.b64decode(row["body"]))
    search = options.get("search")
    place: QueryPlace = row["headers"][QUERY_HEADER]
    return Question(place, start, texts, role, Search(**search) if search else None)


def ask(questions: Sequence[Question], messages: Sequence[bytes], settings: Settings) -> Call[bool]:
    """Count the query and enqueue it; False when it would exceed `EMBED_QUERY_LIMIT`."""
    query_id = questions[0].place["id"]
    weight = sum(question.place["weight"] for question in questions)
    limits = (weight, settings.query_limit, settings.query_timeout_s)
    keys = (ASKED, WEIGHTS, QUERY_QUEUE)
    return Call(ASK, keys, [query_id, *limits, *messages], bool, settings.broker_url)


def wanted(places: Sequence[QueryPlace], settings: Settings) -> Call[list[bool]]:
    """For each of the questions: whether somebody still waits for an answer."""

    def read(reply: Any) -> list[bool]:
        return [bool(one) for one in reply]

    return Call(WANTED, (ASKED,), [place["id"] for place in places], read, settings.broker_url)


def take(child: str, settings: Settings) -> Call[list[bytes]]:
    """Messages of questions that somebody waits for, for a child in the middle of a pass.

    Until they are answered it is written down that the child has them: `disown` reads it.
    """
    remember_s = round(settings.query_timeout_s) + 60
    limits = (TAKEN_MESSAGES, MESSAGE_DOCUMENTS, remember_s)
    keys = (ASKED, QUERY_QUEUE, f"{TAKEN}{child}")
    names = (QUERY_TASK_NAME, QUERY_HEADER, ANSWERS)
    return Call(TAKE, keys, [*names, *limits], list, settings.broker_url)


def disown(client: redis.Redis, child: str, reason: str, settings: Settings) -> int:
    """Tell whoever waits for what the child has taken and not answered that it is lost; how many
    were told. Raises BrokerDown."""
    with redis_errors(settings.broker_url):
        row = client.getdel(f"{TAKEN}{child}")
    places: list[QueryPlace] = orjson.loads(row) if isinstance(row, bytes) else []
    if not places:
        return 0
    lost = [Answer(place["id"], place["part"], error=NoAnswer(reason)) for place in places]
    return run(client, answer(places, lost, settings))


def answer(
    places: Sequence[QueryPlace],
    answers: Sequence[Answer],
    settings: Settings,
    *,
    child: str | None = None,
) -> Call[int]:
    """Give the answers to those that still wait for them; `child` has taken the questions in the
    middle of a pass."""
    arguments: list[str | bytes | int] = [ANSWER_TTL_S, f"{TAKEN}{child}" if child else ""]
    for place, one in zip(places, answers, strict=True):
        arguments += [place["id"], place["weight"], one.to_json()]
    keys = [ASKED, WEIGHTS, *(place["box"] for place in places)]
    return Call(ANSWER, keys, arguments, int, settings.broker_url)


def leave(query_id: str, messages: Sequence[bytes], settings: Settings) -> Call[int]:
    """Wait no more: the query counts no longer, and its messages leave the queue."""
    keys = (ASKED, WEIGHTS, QUERY_QUEUE)
    return Call(LEAVE, keys, [query_id, *messages], int, settings.broker_url)


def decode_vectors(answers: Sequence[Answer], texts: int) -> list[bytes]:
    """Each text's float32 vector, little-endian, from the answers in the order of their parts."""
    data = b"".join(base64.b64decode(one.vectors) for one in answers)
    size = len(data) // texts
    return [data[at : at + size] for at in range(0, size * texts, size)]
