"""Bodies of JSON: many values are refused before they are made, long texts are not."""

import time
from collections.abc import Callable

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import InvalidJson, RequestTooLarge
from webapp import bodies
from webapp.bodies import MAX_VALUES, parse_json

MANY = 3 * MAX_VALUES


def seconds(action: Callable[[], object]) -> float:
    """Of this thread."""
    began = time.thread_time()
    action()
    return time.thread_time() - began


def repeat(value: bytes, count: int) -> bytes:
    return b"[" + b",".join([value] * count) + b"]"


@pytest.mark.parametrize("value", [b"[]", b"{}", b'""', b'{"a":[]}', rb'"\""', b"0"])
def test_too_many_values_are_refused(value: bytes) -> None:
    with pytest.raises(RequestTooLarge) as caught:
        parse_json(repeat(value, MAX_VALUES + 1), "the body")
    assert caught.value.code == "too_many_values"


def test_refusing_costs_a_fraction_of_making_them() -> None:
    body = repeat(b"[]", MANY)

    def refuse() -> None:
        with pytest.raises(RequestTooLarge):
            parse_json(body, "the body")

    assert seconds(refuse) < seconds(lambda: orjson.loads(body)) / 3


def test_depth_alone_is_cheap() -> None:
    for body in (b"[" * MANY, b'{"a":' * MANY):
        with pytest.raises((InvalidJson, RequestTooLarge)):
            parse_json(body, "the body")


def test_what_looks_like_values_in_texts_is_none() -> None:
    text = 'a, [b], {"c": "\\", [", \\\\' * 50_000
    for body in (orjson.dumps({"text": text}), orjson.dumps([text] * 3)):
        assert parse_json(body, "the body") == orjson.loads(body)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(alphabet='a"\\,[{', max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='"\\,', max_size=2), inner)
    ),
    max_leaves=20,
)


def count(value: object) -> int:
    """Containers and what is in them, keys not counted."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(count, inner))


@given(values)
def test_exactly_so_many_values_are_allowed(value: object) -> None:
    body, most = orjson.dumps(value), count(value)
    openers = bodies._count_openers(body)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bodies, "MAX_VALUES", openers)
        assert parse_json(body, "it") == value
        patch.setattr(bodies, "MAX_VALUES", 2 * most)  # an empty container counts as two
        assert parse_json(body, "it") == value
