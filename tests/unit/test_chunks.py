"""Long texts are cut on sentence borders in any script, and only white space is dropped."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.settings import Settings
from workers.chunks import WINDOW_CHARACTERS
from workers.encoder import count_tokens
from workers.fake import MAX_TOKENS, FakeEncoder

SENTENCES = {
    "English": "This is one sentence. Here comes another one! Is that all? ",
    "German": "Das ist ein Satz. Hier kommt noch einer! War das alles? ",
    "Korean": "안녕하세요, 저는 학생입니다. 오늘은 날씨가 아주 좋네요! 그렇지 않습니까? ",
}
WITHOUT_SPACES = {
    "Chinese": "今天天气很好。我们去公园吧！你觉得怎么样？",
    "Japanese": "これは日本語の文です。次の文もあります。終わりですか？",
}
ENDS = tuple(".!?。！？")

words = st.text(
    st.one_of(
        st.characters(categories=["L", "N", "P", "S"]),
        st.sampled_from("안녕今日はüß👩‍👩‍👧‍👦🇰🇷."),
    ),
    min_size=1,
    max_size=8,
)
spaces = st.sampled_from([" ", " ", " ", "\n", "\n\n", "\t", "\u3000", ". ", "! "])


@pytest.fixture(scope="module")
def encoder() -> FakeEncoder:
    return FakeEncoder(Settings(model="fake"))


class CountedCharacters:
    """Reads one token a character that is not white space, as models do with Chinese."""

    def __init__(self, capacity: int) -> None:
        from semantic_text_splitter import TextSplitter

        self.splitter = TextSplitter.from_callback(lambda text: len(solid(text)), capacity)

    def chunks(self, text: str) -> list[str]:
        return self.splitter.chunks(text)


def solid(text: str) -> str:
    return re.sub(r"\s", "", text)


@pytest.mark.parametrize("language", SENTENCES)
def test_chunks_end_where_sentences_end(encoder: FakeEncoder, language: str) -> None:
    text = (SENTENCES[language] * 200).strip()
    chunks = encoder.split(text)
    assert len(chunks) > 1
    assert all(chunk.endswith(ENDS) for chunk in chunks)
    assert max(count_tokens(encoder, chunks)) <= MAX_TOKENS


@pytest.mark.parametrize("language", WITHOUT_SPACES)
def test_scripts_without_spaces_have_sentences_too(language: str) -> None:
    from workers.chunks import split_text

    text = WITHOUT_SPACES[language] * 100
    chunks = split_text(text, CountedCharacters(100), 100)
    assert "".join(chunks) == text
    assert all(chunk.endswith(ENDS) and len(chunk) <= 100 for chunk in chunks)


@given(st.lists(st.tuples(words, spaces), min_size=MAX_TOKENS, max_size=3 * MAX_TOKENS))
@settings(max_examples=25, deadline=None)
def test_only_white_space_is_dropped(parts: list[tuple[str, str]]) -> None:
    encoder = FakeEncoder(Settings(model="fake"))
    text = "".join(word + space for word, space in parts)
    chunks = encoder.split(text)
    assert solid("".join(chunks)) == solid(text)
    assert max(count_tokens(encoder, chunks)) <= MAX_TOKENS


def test_a_text_of_many_windows_is_whole(encoder: FakeEncoder) -> None:
    text = " ".join(f"word{number}" for number in range(10_000))
    assert len(text) > 5 * WINDOW_CHARACTERS
    chunks = encoder.split(text)
    assert " ".join(chunks) == text
    assert max(count_tokens(encoder, chunks)) <= MAX_TOKENS


def test_a_sentence_that_is_too_long_is_cut_between_words(encoder: FakeEncoder) -> None:
    text = "word " * 1000
    assert {word for chunk in encoder.split(text) for word in chunk.split()} == {"word"}
