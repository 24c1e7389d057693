"""Answers: numbers are printed as Qdrant prints them."""

from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import orjson
import qdrant_edge as engine
from hypothesis import given, settings
from hypothesis import strategies as st

from compose.qdrant.records import format_scored


@dataclass
class Hit:
    """As much of the engine's ScoredPoint as an answer is made of."""

    id: object = 1
    version: int = 3
    score: float = 0.15
    payload: dict[str, Any] | None = None
    vector: list[float] | None = field(default=None)


def print_hit(hit: Hit) -> str:
    answer = format_scored(cast(engine.ScoredPoint, hit))
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY).decode()


def test_float32_is_printed_with_the_digits_it_needs() -> None:
    printed = print_hit(Hit(score=float(np.float32(0.15)), vector=[float(np.float32(0.1))]))
    assert '"score":0.15' in printed
    assert '"vector":[0.1]' in printed


def test_what_was_not_asked_for_is_absent() -> None:
    assert orjson.loads(print_hit(Hit())).keys() == {"id", "version", "score"}


@settings(deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_every_float32_reads_back_the_same(vector: list[float]) -> None:
    printed = orjson.loads(print_hit(Hit(vector=vector)))["vector"]
    assert [np.float32(number) for number in printed] == [np.float32(n) for n in vector]
