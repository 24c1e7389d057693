"""Filters: what becomes of the supported conditions, and that no other passes."""

from typing import Any

import orjson
import pytest
import qdrant_edge as engine
from pydantic import TypeAdapter
from qdrant_client.http import models

from compose.qdrant.bodies import parse_body
from compose.qdrant.errors import MalformedError, UnsupportedError
from compose.qdrant.filters import build_filter

FILTER = TypeAdapter(models.Filter)


def read_filter(body: dict[str, Any]) -> engine.Filter:
    return build_filter(parse_body(FILTER, orjson.dumps(body)))


def read_condition(body: dict[str, Any]) -> Any:
    conditions = read_filter({"must": [body]}).must
    assert conditions is not None
    return conditions[0]


@pytest.mark.parametrize("value", ["x", 7, -(2**63), True, False])
def test_a_value_to_match_keeps_its_type(value: object) -> None:
    kept = read_condition({"key": "a", "match": {"value": value}}).match.value
    assert (kept, type(kept)) == (value, type(value))


def test_lists_to_match_are_kept() -> None:
    assert read_condition({"key": "a", "match": {"any": ["x", "y"]}}).match.value == ["x", "y"]
    assert read_condition({"key": "a", "match": {"except": [1, 2]}}).match.value == [1, 2]


def test_a_range_keeps_its_bounds() -> None:
    bounds = read_condition({"key": "a", "range": {"gte": 1, "lt": 2.5}}).range
    assert (bounds.gte, bounds.gt, bounds.lte, bounds.lt) == (1.0, None, None, 2.5)


def test_conditions_stay_in_their_clauses() -> None:
    empty = {"is_empty": {"key": "a"}}
    built = read_filter({"must": empty, "should": [empty, empty], "must_not": []})
    assert [len(clause or []) for clause in (built.must, built.should, built.must_not)] == [1, 2, 0]


def test_filters_nest() -> None:
    inner = read_condition({"should": [{"is_null": {"key": "a"}}]})
    assert isinstance(inner, engine.Filter)


@pytest.mark.parametrize(
    "condition",
    [
        {"key": "a", "match": {"text": "words"}},
        {"key": "a", "match": {"phrase": "words"}},
        {"key": "a", "range": {"gte": "2026-01-01T00:00:00Z"}},
        {"key": "a", "values_count": {"gte": 1}},
        {"key": "a", "geo_radius": {"center": {"lon": 1, "lat": 1}, "radius": 1}},
        {"nested": {"key": "a", "filter": {}}},
        {"has_vector": "dense"},
        {"min_should": {"conditions": [], "min_count": 1}},
    ],
)
def test_other_conditions_are_unsupported(condition: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError):
        read_condition(condition)


@pytest.mark.parametrize(
    "condition",
    [
        {},
        {"key": "a"},
        {"key": "a["},
        {"key": "", "is_null": True},
        {"key": "a", "match": {"value": 2**63}},
        {"key": "a", "match": {"value": 1.5}},
        {"key": "a", "match": {"any": [1, "x"]}},
        {"key": "a", "match": {"any": [2**63]}},
        {"key": "a", "match": {"value": 1}, "range": {"lt": 1}},
        {"key": "a", "range": {"lt": "soon"}},
        {"has_id": [-1]},
        {"has_id": 1},
        {"is_empty": "a"},
    ],
)
def test_malformed_conditions_are_refused(condition: dict[str, Any]) -> None:
    body = {"must": [condition]} if condition else {"must": "x"}
    with pytest.raises(MalformedError):
        read_filter(body)
