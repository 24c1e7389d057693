"""Documents in lines of text."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compose import formats
from compose.errors import InputError
from compose.formats import Format, Line, read_json_lines, read_markdown, read_text
from compose.items import Item


def read(read_format: Format, text: str) -> list[Item]:
    lines = text.splitlines(keepends=True)
    return list(read_format([Line(n, line) for n, line in enumerate(lines, 1)], "f"))


def documents(items: list[Item]) -> list[dict[str, Any]]:
    return [orjson.loads(item.body) for item in items]


def texts(items: list[Item]) -> list[str]:
    return [document["text"] for document in documents(items)]


def test_text_is_cut_at_blank_lines() -> None:
    items = read(read_text, "\n  one\ttwo \nthree\r\n \t\n\n\nfour")
    assert texts(items) == ["one two three", "four"]
    assert [item.place for item in items] == ["f:2", "f:7"]
    assert documents(items)[1]["metadata"] == {"source": "f", "paragraph": 1}


@given(st.text(alphabet="ab \n\t", max_size=300))
def test_text_loses_no_word(text: str) -> None:
    assert " ".join(texts(read(read_text, text))).split() == text.split()


MARKDOWN = """# Mill

## Install ##
Do this
and that.
```sh
pip install x

    run
```
More.

~~~~
```
~~~~
# The end
"""


def test_markdown_keeps_headings_with_what_follows_and_code_as_it_stands() -> None:
    items = read(read_markdown, MARKDOWN)
    assert texts(items) == [
        "Mill\nInstall\nDo this and that.",
        "pip install x\n\n    run",
        "More.",
        "```",
        "The end",
    ]
    assert [item.place for item in items] == ["f:1", "f:6", "f:11", "f:13", "f:16"]
    headings = [document["metadata"]["heading"] for document in documents(items)]
    assert headings == ["Install", "Install", "Install", "Install", "The end"]


def test_markdown_code_that_is_not_closed_goes_to_the_end() -> None:
    assert texts(read(read_markdown, "```\na\n\nb\n")) == ["a\n\nb"]


@given(st.text(alphabet="ab \n", max_size=300))
def test_markdown_without_marks_is_text(text: str) -> None:
    assert texts(read(read_markdown, text)) == texts(read(read_text, text))


def test_json_lines() -> None:
    items = read(read_json_lines, '{"text": "a", "id": "1"}\n\n{"text": "b", "metadata": {"n": 1}}')
    assert documents(items) == [{"text": "a", "id": "1"}, {"text": "b", "metadata": {"n": 1}}]
    assert [(item.id, item.place) for item in items] == [("1", "f:1"), (None, "f:3")]


@pytest.mark.parametrize("line", ["{", '"text"', "[]", '{"id": "1"}', "text", '{"text": NaN}'])
def test_a_bad_line_is_named(line: str) -> None:
    with pytest.raises(InputError, match=r"^f:2: "):
        read(read_json_lines, f'{{"text": "a"}}\n{line}\n')


def test_a_paragraph_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "BLOCK_BYTES", 10)
    with pytest.raises(InputError, match=r"^f:3: .* without a blank line"):
        read(read_text, "a\n\nb\n" + "word\n" * 4)
