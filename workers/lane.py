"""Queries in the middle of a pass: between two calls of the model a child answers what is asked.

`workers.startup` opens the lane in pool children whose worker consumes queries, `workers.execution`
gives way. While no child is idle questions stay in Redis, and whichever child, of any worker, comes
first to the end of a model call takes them. A question that kills the process is blamed on no
document: none is taken while one runs alone.
"""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from tasks.admission import redis_client
from tasks.errors import BrokerDown, EmbedError
from tasks.ledger import run
from tasks.messages import ModelCard
from tasks.queries import Question, disown, take, unpack
from tasks.settings import Settings
from workers.encoder import Encoder, TokenizedText, Vectors
from workers.timings import Timings
from workers.waiting import add_wait

logger = logging.getLogger(__name__)

LOOK_S = 0.01
"""Between two looks for queries that find none: one takes 0.2 ms, and a call of the model on a CPU
some 100 ms."""
LOOKS = 20
"""As many times as long as such a look took, if that is more, as where a disk slows Redis down."""
REST = 0.5
"""Of the time that queries took, before the next look: documents have a call of the model, and a
third of a child's time, however many queries there are. More would mean a second call, whenever a
query takes as long as one."""
SILENCE_S = 5.0
"""The same after a look at a Redis that is away, which may take a second."""

Answering = Callable[[Sequence[Question], str], None]
"""Answers questions that this child, of this name, has taken."""


class Lane:
    """One process' way to the queries that wait."""

    def __init__(self, child: str, answer: Answering, settings: Settings) -> None:
        self._child, self._answer, self._settings = child, answer, settings
        self._next_at = float("-inf")
        self._unsure = False

    def give_way(self) -> float:
        """Answer queries if some wait and it is their turn. Returns the seconds that took.

        Raises OutOfTime when the pass' own limit passes meanwhile; nothing else that a query does
        wrong comes out of here, so that it does not fail a document.
        """
        began_s = time.monotonic()
        if began_s < self._next_at:
            return 0.0
        try:
            served = self._serve()
        except BrokerDown as error:
            logger.debug("no look for queries: %s", error)
            self._unsure = True
            self._next_at = time.monotonic() + SILENCE_S
            return 0.0
        ended_s = time.monotonic()
        took_s = ended_s - began_s
        self._next_at = ended_s + max(LOOK_S, (REST if served else LOOKS) * took_s)
        return took_s if served else 0.0

    def _serve(self) -> bool:
        """Raises BrokerDown when nobody knows whether something was taken."""
        if self._unsure:
            self._disown()
        try:
            messages = run(redis_client(), take(self._child, self._settings))
            if messages:
                self._answer([unpack(message) for message in messages], self._child)
        except BrokerDown:
            raise
        except Exception as error:
            self._unsure = True
            with suppress(BrokerDown):
                self._disown()
            if isinstance(error, EmbedError) and error.retryable:
                raise
            logger.exception("queries failed")
            return True
        return bool(messages)

    def _disown(self) -> None:
        """What was taken and not answered. Raises BrokerDown."""
        reason = "the process that worked on it could not answer: ask again"
        disown(redis_client(), self._child, reason, self._settings)
        self._unsure = False


class GivingWay:
    """An encoder that gives way to queries before each call; their time is noted as their own."""

    def __init__(self, encoder: Encoder, give_way: Callable[[], float], timings: Timings) -> None:
        self._encoder, self._give_way, self._timings = encoder, give_way, timings

    @property
    def card(self) -> ModelCard:
        return self._encoder.card

    @property
    def recipe(self) -> str:
        return self._encoder.recipe

    @property
    def budget_tokens(self) -> int:
        return self._encoder.budget_tokens

    def tokenize(self, texts: Sequence[str]) -> list[TokenizedText]:
        return self._encoder.tokenize(texts)

    def tokenize_queries(self, texts: Sequence[str]) -> list[TokenizedText]:
        return self._encoder.tokenize_queries(texts)

    def split(self, text: str) -> list[str]:
        return self._encoder.split(text)

    def encode(self, texts: Sequence[TokenizedText]) -> Vectors:
        spent_s = self._give_way()
        if spent_s:
            self._timings.reassign(spent_s, "encode", "queries")
        return self._encoder.encode(texts)


_lane: Lane | None = None


def open_lane(child: str, answer: Answering, settings: Settings) -> None:
    """In a pool child, after any fork."""
    global _lane  # noqa: PLW0603  # one a process, as its model
    _lane = Lane(child, answer, settings)


def give_way() -> float:
    """Answer queries if some wait and it is their turn; nothing where there is no lane. Returns
    the seconds that took, which no time limit of the pass counts. Raises OutOfTime."""
    spent_s = _lane.give_way() if _lane is not None else 0.0
    if spent_s:
        add_wait(spent_s)
    return spent_s
