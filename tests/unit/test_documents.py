"""What a document may be."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.documents import parse_documents, parse_options, refuse_oversize
from tasks.errors import InvalidDocument, InvalidRequest, RequestTooLarge
from tasks.messages import Document, OnLong, Options, text_id
from tasks.settings import Settings

SETTINGS = Settings()

texts = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1).filter(
    lambda text: not text.isspace()
)
documents = st.fixed_dictionaries(
    {"text": texts},
    optional={
        "metadata": st.dictionaries(st.text("abc"), st.integers(-(2**63), 2**63) | st.none())
    },
)


def test_a_text_a_document_and_a_list_are_all_documents() -> None:
    assert parse_documents("a", SETTINGS) == [Document(text_id("a"), "a")]
    assert parse_documents({"text": "a", "id": "1"}, SETTINGS) == [Document("1", "a")]
    assert [d.text for d in parse_documents(["a", {"text": "b"}], SETTINGS)] == ["a", "b"]


@given(st.lists(documents, min_size=1, max_size=5))
def test_what_is_valid_is_kept_as_it_is(raw: list[dict[str, Any]]) -> None:
    parsed = parse_documents(raw, SETTINGS)
    assert [document.text for document in parsed] == [item["text"] for item in raw]
    assert [document.id for document in parsed] == [text_id(item["text"]) for item in raw]
    assert [document.metadata for document in parsed] == [item.get("metadata") for item in raw]


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_anything_else_is_an_error_of_ours_or_a_document(raw: object) -> None:
    try:
        parse_documents(raw, SETTINGS)
    except (InvalidDocument, InvalidRequest):
        return
    assert isinstance(raw, (str, list))


@pytest.mark.parametrize(
    ("item", "code"),
    [
        ({"text": "a", "metadata": {"n": float("nan")}}, "metadata_invalid"),
        ({"text": "a", "metadata": {"n": [{"m": float("inf")}]}}, "metadata_invalid"),
        ({"text": "a", "metadata": {"n": complex(1, 2)}}, "metadata_invalid"),
        ({"text": "a", "metadata": {5: "not a name"}}, "metadata_invalid"),
        ({"text": "a", "metadata": {"n": 2**70}}, "metadata_invalid"),
        ({"text": "a\ud800"}, "text_invalid"),
        ({"text": "a", "id": "\ud800"}, "id_invalid"),
        (b"a", "document_invalid"),
        (None, "document_invalid"),
    ],
    ids=repr,
)
def test_python_values_that_json_cannot_say_are_refused(item: object, code: str) -> None:
    with pytest.raises(InvalidDocument) as refused:
        parse_documents(["fine", item], SETTINGS)
    assert (refused.value.index, refused.value.code) == (1, code)


@pytest.mark.parametrize(
    "items",
    [
        ["a", {"text": "b", "id": text_id("a")}],
        [{"text": "b", "id": text_id("a")}, "a"],
        [{"text": "a", "id": text_id("a")}, {"text": "b", "id": text_id("a")}],
    ],
    ids=["given later", "given first", "given twice"],
)
def test_an_id_that_is_another_texts_hash_is_refused(items: list[object]) -> None:
    with pytest.raises(InvalidDocument) as refused:
        parse_documents(items, SETTINGS)
    assert (refused.value.index, refused.value.code) == (1, "id_duplicate")


def test_the_same_text_twice_is_the_same_document() -> None:
    parsed = parse_documents(["a", "b", "a", {"text": "a"}], SETTINGS)
    assert [document.id for document in parsed] == [text_id(text) for text in "abaa"]


def test_options_have_defaults() -> None:
    assert parse_options(None, None, SETTINGS) == Options("documents", OnLong.CHUNK)


@pytest.mark.parametrize("name", ["", ".hidden", "-flag", "a/b", "a b", "x" * 129, "ü", 5, ["a"]])
def test_a_bad_collection_name_is_refused(name: object) -> None:
    with pytest.raises(InvalidRequest):
        parse_options(name, None, SETTINGS)


def test_what_could_never_fit_is_too_large() -> None:
    settings = SETTINGS.model_copy(update={"queue_limit": 10, "queue_bytes": 2000})
    refuse_oversize([200] * 10, settings)
    with pytest.raises(RequestTooLarge):
        refuse_oversize([1] * 11, settings)
    with pytest.raises(RequestTooLarge):
        refuse_oversize([2001], settings)
