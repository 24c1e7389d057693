"""The child's half of queries: several questions in one pass, each answered to whoever asked it.

`workers.batching` sends batches here from a worker's main process; where there is none, the task
`tasks.query` answers one question at a time.
"""

import base64
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from tasks.admission import redis_client
from tasks.errors import BrokerDown, EmbedError, EncoderBroken, TextTooLong
from tasks.ledger import run
from tasks.messages import QUERY_HEADER
from tasks.queries import Answer, QueryPlace, Question, Role, Search, wanted
from tasks.queries import answer as give_answers
from tasks.settings import get_settings
from workers.batch import Item, Result, decode_item, finish_item
from workers.encoder import TokenizedText
from workers.isolation import together_or_alone
from workers.pipeline import encode_whole
from workers.process import Resources, resources
from workers.publishing import publish_query
from workers.soft_limit import OutOfTime

logger = logging.getLogger(__name__)

Vector = NDArray[np.float32]


def trace_queries(task_name: str, items: Sequence[Item]) -> list[Result]:
    """Answer all, then let Celery's tracer finish each."""
    started = time.monotonic()
    bodies = [decode_item(item) for item in items]
    answer([_read(item, body) for item, body in zip(items, bodies, strict=True)])
    runtime_s = time.monotonic() - started
    return [
        finish_item(task_name, item, body, runtime_s)
        for item, body in zip(items, bodies, strict=True)
    ]


def read_question(
    place: QueryPlace, texts: Sequence[str], role: Role, start: int, search: Any
) -> Question:
    """A question from a message's header and arguments."""
    return Question(place, start, texts, role, Search(**search) if search else None)


def answer(questions: Sequence[Question], child: str | None = None) -> None:
    """Answer the questions that somebody still waits for; the others cost nothing. `child` is this
    process where it has taken them in the middle of a pass.

    Raises BrokerDown in a `child`, whose way to them has to be cleared up. Ends the process when
    its model is broken, after it has said so: Celery replaces it.
    """
    began_s = time.monotonic()
    settings = get_settings()
    try:
        places = [question.place for question in questions]
        kept = run(redis_client(), wanted(places, settings))
        chosen = [one for one, is_wanted in zip(questions, kept, strict=True) if is_wanted]
        if not chosen and child is None:
            return
        answers, broken = _work(chosen)
        places = [question.place for question in chosen]
        run(redis_client(), give_answers(places, answers, settings, child=child))
    except BrokerDown as error:
        logger.warning("%d queries stay without an answer: %s", len(questions), error)
        if child is not None:
            raise
        return
    publish_query(time.monotonic() - began_s)
    if broken is not None:
        logger.critical("this process ends, its model is broken: %s", broken)
        raise SystemExit(1)


def _read(item: Item, body: Any) -> Question:
    (texts, role, start), options, _ = body
    return read_question(item[1][QUERY_HEADER], texts, role, start, options.get("search"))


def _work(questions: Sequence[Question]) -> tuple[list[Answer], EncoderBroken | None]:
    try:
        use = resources()
        found: dict[int, Answer] = {}
        for role in get_args(Role):
            asked = {at: one for at, one in enumerate(questions) if one.role == role}
            found |= _answer_role(asked, role, use)
        return [found[at] for at in range(len(questions))], None
    except EncoderBroken as error:
        return [_refuse(question, error) for question in questions], error


def _answer_role(asked: Mapping[int, Question], role: Role, use: Resources) -> dict[int, Answer]:
    """The answers to questions whose texts have the same prompt, from one pass."""
    tokenize = use.encoder.tokenize_queries if role == "query" else use.encoder.tokenize
    texts = [text for question in asked.values() for text in question.texts]
    read = iter(together_or_alone(tokenize, texts, Exception))
    rows = {at: [next(read) for _ in question.texts] for at, question in asked.items()}
    errors = {at: _find_error(asked[at], row, use) for at, row in rows.items()}
    readable = {at: _valid(row) for at, row in rows.items() if errors[at] is None}
    flat = [text for row in readable.values() for text in row]
    vectors = iter(encode_whole(flat, use.encoder, use.budget_tokens))
    answers = {at: _refuse(asked[at], error) for at, error in errors.items() if error is not None}
    for at, row in readable.items():
        made = [next(vectors) for _ in row]
        answers[at] = _answer_one(asked[at], row, made, use)
    return answers


def _find_error(
    question: Question, row: Sequence[TokenizedText | EmbedError], use: Resources
) -> EmbedError | None:
    """What keeps a text from being read whole, if anything."""
    limit = use.encoder.card.max_tokens
    for number, text in enumerate(row, question.start):
        if isinstance(text, EmbedError):
            return text
        if len(text) > limit:
            return TextTooLong(
                f"this model reads at most {limit} tokens, but text {number} has {len(text)}: "
                "shorten it"
            )
    return None


def _valid(row: Sequence[TokenizedText | EmbedError]) -> list[TokenizedText]:
    return [text for text in row if isinstance(text, TokenizedText)]


def _answer_one(
    question: Question,
    row: Sequence[TokenizedText],
    made: Sequence[Vector | EmbedError],
    use: Resources,
) -> Answer:
    vectors = [one for one in made if not isinstance(one, EmbedError)]
    if len(vectors) < len(made):
        return _refuse(question, next(one for one in made if isinstance(one, EmbedError)))
    place, tokens = question.place, sum(map(len, row))
    if question.search is None:
        data = np.stack(vectors).astype("<f4").tobytes()
        vectors_text = base64.b64encode(data).decode()
        return Answer(place["id"], place["part"], vectors_text, tokens)
    try:
        hits = use.index.search(question.search, vectors[0], use.encoder.card)
    except OutOfTime:  # of the pass in whose middle this is
        raise
    except EmbedError as error:
        return _refuse(question, error)
    return Answer(place["id"], place["part"], tokens=tokens, hits=hits)


def _refuse(question: Question, error: EmbedError) -> Answer:
    place = question.place
    return Answer(place["id"], place["part"], error=error)
