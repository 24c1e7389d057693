"""What a request body may be: identifiers, vectors, payloads, nesting, and nothing unknown."""

import json
import math
from collections.abc import Callable
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compose.qdrant.bodies import MAX_NESTING, nests_within
from compose.qdrant.errors import MalformedError, RefusalError, UnsupportedError
from compose.qdrant.identifiers import check_collection_name, parse_point_id
from compose.qdrant.points import MAX_LENGTH, check_vector, parse_upsert
from compose.qdrant.requests import (
    parse_collection,
    parse_count,
    parse_deletion,
    parse_index,
    parse_query,
    parse_scroll,
    parse_selection,
)

DIMENSION = 3
POINT: dict[str, Any] = {"id": 1, "vector": [1, 0.5, -2], "payload": {"a": 1}}
FILTER: dict[str, Any] = {
    "must": [{"key": "a.b[]", "match": {"any": ["x"]}}, {"has_id": [1]}],
    "should": {"key": "n", "range": {"gte": 1, "lt": 2.5}},
    "must_not": [{"is_empty": {"key": "c"}}, {"must": [{"is_null": {"key": "d"}}]}],
}
Parser = Callable[[bytes], object]
PARSERS: dict[str, tuple[Parser, dict[str, Any]]] = {
    "upsert": (
        lambda body: parse_upsert(body, DIMENSION),
        {"points": [POINT], "update_filter": FILTER, "update_mode": "update_only"},
    ),
    "batch": (
        lambda body: parse_upsert(body, DIMENSION),
        {"batch": {"ids": [1], "vectors": [[1, 2, 3]], "payloads": [{"a": None}]}},
    ),
    "collection": (
        parse_collection,
        {"vectors": {"size": 3, "distance": "Cosine"}, "metadata": {"a": 1}},
    ),
    "index": (parse_index, {"field_name": "a", "field_schema": "keyword"}),
    "deletion": (parse_deletion, {"points": [1, "d3bf8ef6-7f4b-4a79-8d0f-6a2ef2d4e1c1"]}),
    "deletion by filter": (parse_deletion, {"filter": FILTER}),
    "selection": (parse_selection, {"ids": [1], "with_payload": ["a"], "with_vector": True}),
    "scroll": (parse_scroll, {"limit": 3, "offset": 1, "filter": FILTER}),
    "count": (parse_count, {"filter": FILTER, "exact": True}),
    "query": (
        lambda body: parse_query(body, DIMENSION),
        {"query": {"nearest": [1, 2, 3]}, "params": {"exact": True}, "score_threshold": 0.5},
    ),
}
parsers = pytest.mark.parametrize(("parse", "valid"), PARSERS.values(), ids=PARSERS.keys())

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


def list_places(value: object, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in a JSON document, its root first."""
    items: list[tuple[Any, object]] = []
    if isinstance(value, dict):
        items = list(value.items())
    if isinstance(value, list):
        items = list(enumerate(value))
    return [place] + [p for key, item in items for p in list_places(item, (*place, key))]


def replace(value: Any, place: tuple[Any, ...], new: object) -> Any:
    if not place:
        return new
    copy = value.copy()
    copy[place[0]] = replace(value[place[0]], place[1:], new)
    return copy


def add_field(value: Any, place: tuple[Any, ...]) -> Any:
    """The document with an unknown field in the object at `place`."""
    target = value
    for key in place:
        target = target[key]
    return replace(value, place, {**target, "surprise": 1})


@parsers
def test_a_valid_body_is_read(parse: Parser, valid: dict[str, Any]) -> None:
    assert parse(orjson.dumps(valid))


@parsers
@patient
@given(data=st.data())
def test_one_wrong_value_anywhere_is_read_or_refused_and_never_a_crash(
    parse: Parser, valid: dict[str, Any], data: st.DataObject
) -> None:
    place = data.draw(st.sampled_from(list_places(valid)))
    body = json.dumps(replace(valid, place, data.draw(json_values)))
    try:
        parse(body.encode("utf-8", "surrogatepass"))
    except RefusalError as refusal:
        assert refusal.status_code in {400, 501}  # noqa: PT017  (either outcome is right)


@parsers
def test_an_unknown_field_is_refused_in_every_object_but_free_ones(
    parse: Parser, valid: dict[str, Any]
) -> None:
    places = [place for place in list_places(valid) if is_closed_object(valid, place)]
    assert places
    for place in places:
        with pytest.raises(RefusalError):
            parse(orjson.dumps(add_field(valid, place)))


def is_closed_object(value: Any, place: tuple[Any, ...]) -> bool:
    for key in place:
        value = value[key]
    free = {"payload", "metadata", "payloads"}
    return isinstance(value, dict) and not free & set(place)


@parsers
@pytest.mark.parametrize("body", [b"", b"{", b"NaN", b'{"a":1e999}', b'"\xff"', b'"\\ud800"'])
def test_what_is_not_strict_json_is_refused(
    parse: Parser, valid: dict[str, Any], body: bytes
) -> None:
    with pytest.raises(MalformedError):
        parse(body)


@pytest.mark.parametrize("value", [0, 1, 2**64 - 1, "d3bf8ef67f4b4a798d0f6a2ef2d4e1c1"])
def test_integers_of_64_bits_and_uuids_are_point_ids(value: int | str) -> None:
    assert parse_point_id(value) == value


@patient
@given(st.uuids())
def test_every_uuid_is_a_point_id(value: UUID) -> None:
    assert parse_point_id(str(value)) == str(value)


@pytest.mark.parametrize("value", [-1, 2**64, True, None, 1.0, "", "7", "x" * 32, [1], {}])
def test_anything_else_is_not_a_point_id(value: object) -> None:
    with pytest.raises(MalformedError, match="not a valid point ID"):
        parse_point_id(value)


@patient
@given(st.lists(st.floats(min_value=-1e18, max_value=1e18) | st.integers(-9, 9), min_size=1))
def test_finite_vectors_of_the_right_size_pass_unchanged(vector: list[float]) -> None:
    assert check_vector(vector, len(vector)) is vector


@patient
@given(
    st.lists(st.floats(min_value=-1, max_value=1)),
    st.sampled_from([math.nan, math.inf, -math.inf, 1e39, -1e300, 10**400]),
    st.lists(st.floats(min_value=-1, max_value=1)),
)
def test_one_number_that_float32_does_not_hold_is_enough(
    before: list[float], bad: float, after: list[float]
) -> None:
    vector = [*before, bad, *after]
    with pytest.raises(MalformedError, match="not finite"):
        check_vector(vector, len(vector))


@pytest.mark.parametrize("vector", [[1.0, True, 0.0], [1.0, "2", 0.0], [1.0, None, 0.0], "abc", 5])
def test_only_numbers_make_a_vector(vector: object) -> None:
    with pytest.raises(MalformedError, match="list of numbers"):
        check_vector(vector, 3)


def test_a_vector_of_another_size_is_told_both_sizes() -> None:
    with pytest.raises(MalformedError, match="expected dim: 3, got 2"):
        check_vector([1.0, 2.0], 3)


@pytest.mark.parametrize(
    "vector", [{"dense": [1.0]}, {"indices": [1], "values": [1.0]}, {"text": "a"}, [[1.0]]]
)
def test_other_kinds_of_vectors_are_unsupported(vector: object) -> None:
    with pytest.raises(UnsupportedError):
        check_vector(vector, 1)


def test_the_longest_vectors_have_a_finite_distance_in_float32() -> None:
    assert (2 * MAX_LENGTH) ** 2 < 3.4028e38


def test_a_bad_point_is_named_by_its_index() -> None:
    body = {"points": [POINT, {**POINT, "vector": [1]}]}
    with pytest.raises(MalformedError, match=r"points\[1\]"):
        parse_upsert(orjson.dumps(body), DIMENSION)


def test_columns_of_a_batch_must_have_one_length() -> None:
    body = {"batch": {"ids": [1, 2], "vectors": [[1, 2, 3]]}}
    with pytest.raises(MalformedError, match="as many"):
        parse_upsert(orjson.dumps(body), DIMENSION)


@pytest.mark.parametrize("kind", [list, dict])
def test_nesting_is_counted_in_levels(kind: type) -> None:
    value: object = 1
    for _ in range(MAX_NESTING):
        value = [value] if kind is list else {"a": value}
    assert nests_within(value, MAX_NESTING)
    assert not nests_within([value], MAX_NESTING)


def test_a_payload_nested_too_deeply_is_refused() -> None:
    payload: dict[str, Any] = {}
    for _ in range(MAX_NESTING):
        payload = {"a": payload}
    with pytest.raises(MalformedError, match="nested deeper"):
        parse_upsert(orjson.dumps({"points": [{**POINT, "payload": payload}]}), DIMENSION)


@pytest.mark.parametrize("name", ["a", "Dökumente 1", "x" * 255, "a.b-c"])
def test_collection_names_that_qdrant_takes(name: str) -> None:
    assert check_collection_name(name) == name


@pytest.mark.parametrize("name", ["", "x" * 256, "a/b", "a\\b", "a?", "a\0", 'a"'])
def test_collection_names_that_qdrant_refuses(name: str) -> None:
    with pytest.raises(MalformedError):
        check_collection_name(name)
