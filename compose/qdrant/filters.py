"""Filters: Qdrant's filter models -> the engine's filters.

Everything the engine would object to is refused here, because it logs an operation before it looks
at it. Imported by points and requests.
"""

from collections.abc import Sequence

import numpy as np
import qdrant_edge as engine
from qdrant_client.http import models

from compose.qdrant.bodies import refuse_other_fields
from compose.qdrant.errors import MalformedError, UnsupportedError
from compose.qdrant.identifiers import parse_point_id

INT64 = range(-(2**63), 2**63)

Condition = (
    engine.FieldCondition
    | engine.IsEmptyCondition
    | engine.IsNullCondition
    | engine.HasIdCondition
    | engine.HasVectorCondition
    | engine.NestedCondition
    | engine.Filter
)
Match = engine.MatchValue | engine.MatchAny | engine.MatchExcept


def build_filter(body: models.Filter) -> engine.Filter:
    """
    Raises:
        MalformedError: a path, an id or a number is not valid.
        UnsupportedError: a condition other than match value/any/except, range, has_id, is_empty,
            is_null or a nested must/should/must_not.
    """
    refuse_other_fields(body, "must", "should", "must_not")
    return engine.Filter(
        must=build_conditions(body.must),
        should=build_conditions(body.should),
        must_not=build_conditions(body.must_not),
    )


def build_conditions(
    body: Sequence[models.Condition] | models.Condition | None,
) -> list[Condition] | None:
    if body is None:
        return None
    conditions = body if isinstance(body, list) else [body]
    return [build_condition(condition) for condition in conditions]


def build_condition(body: object) -> Condition:
    match body:
        case models.FieldCondition():
            return build_field_condition(body)
        case models.HasIdCondition():
            return engine.HasIdCondition({parse_point_id(item) for item in body.has_id})
        case models.IsEmptyCondition():
            return engine.IsEmptyCondition(check_path(body.is_empty.key))
        case models.IsNullCondition():
            return engine.IsNullCondition(check_path(body.is_null.key))
        case models.Filter():
            return build_filter(body)
        case _:
            raise UnsupportedError(f"the condition {type(body).__name__}")


def build_field_condition(body: models.FieldCondition) -> engine.FieldCondition:
    refuse_other_fields(body, "key", "match", "range", "is_empty", "is_null")
    tests = [body.match, body.range, body.is_empty, body.is_null]
    if sum(test is not None for test in tests) != 1:
        raise MalformedError(
            f"Validation error in filter: a condition on `{body.key}` needs exactly one of"
            " match, range, is_empty, is_null"
        )
    return engine.FieldCondition(
        key=check_path(body.key),
        match=None if body.match is None else build_match(body.match),
        range=None if body.range is None else build_range(body.range),
        is_empty=body.is_empty,
        is_null=body.is_null,
    )


def build_match(body: object) -> Match:
    match body:
        case models.MatchValue(value=bool() as value):
            # The binding takes a Python bool for the integers 0 and 1; numpy's stays a bool.
            return engine.MatchValue(np.bool_(value))  # type: ignore[arg-type]
        case models.MatchValue(value=value):
            return engine.MatchValue(check_int64(value))
        case models.MatchAny(any=values):
            return engine.MatchAny([check_int64(value) for value in values])  # type: ignore[arg-type]
        case models.MatchExcept(except_=values):
            return engine.MatchExcept([check_int64(value) for value in values])  # type: ignore[arg-type]
        case _:
            raise UnsupportedError(f"the match {type(body).__name__}")


def build_range(body: object) -> engine.RangeFloat:
    if not isinstance(body, models.Range):
        raise UnsupportedError("a range of dates")
    return engine.RangeFloat(gte=body.gte, gt=body.gt, lte=body.lte, lt=body.lt)


def check_int64(value: int | str) -> int | str:
    if isinstance(value, int) and value not in INT64:
        raise MalformedError(f"Validation error in filter: {value} does not fit 64 bits")
    return value


def check_path(key: str) -> str:
    """
    Raises:
        MalformedError: the engine does not read `key` as a path into a payload.
    """
    try:
        engine.IsEmptyCondition(key)
    except ValueError as error:
        raise MalformedError(f"Format error in JSON body: {error}") from error
    return key
