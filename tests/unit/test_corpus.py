"""The demo's text."""

import sys

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compose import corpus
from compose.corpus import reference_items
from compose.errors import InputError
from workers.reference import read_paragraphs, split_paragraphs


@pytest.mark.skipif(sys.version_info[:3] != (3, 11, 7), reason="the text differs with the Python")
def test_the_reference_of_python_3_11() -> None:
    documents = [orjson.loads(item.body) for item in reference_items()]
    assert len({document["metadata"]["topic"] for document in documents}) == 79
    assert len(documents) == 1970
    assert len({document["text"] for document in documents}) == 1619


def test_every_python_brings_enough_and_the_demos_first_answer() -> None:
    texts = [orjson.loads(item.body)["text"] for item in reference_items()]
    assert len(texts) > 1000
    assert any("Default parameter values are evaluated from left to right" in t for t in texts)


def test_documents_have_no_ids_so_that_a_repeated_paragraph_is_one() -> None:
    assert all(item.id is None for item in reference_items())


@given(st.text(alphabet="ab \n\t", max_size=400))
def test_paragraphs_are_long_and_their_white_space_is_single(text: str) -> None:
    for paragraph in split_paragraphs(text):
        assert len(paragraph) > 40
        assert paragraph == " ".join(paragraph.split())


def test_a_sample_is_of_all_pages_and_distinct() -> None:
    texts = read_paragraphs(150)
    assert len(set(texts)) == 150
    topics = {
        orjson.loads(item.body)["metadata"]["topic"]
        for item in reference_items()
        if orjson.loads(item.body)["text"] in texts
    }
    assert len(topics) > 70


def test_a_python_without_the_reference_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(InputError, match=r"pydoc_data\.topics"):
        list(corpus.reference_items())
