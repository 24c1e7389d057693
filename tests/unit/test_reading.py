"""Files as documents."""

import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import orjson
import pytest

from compose import reading
from compose.errors import InputError
from compose.items import batches, make_item
from compose.reading import Sources


def texts(*names: str) -> list[str]:
    return [orjson.loads(item.body)["text"] for item in Sources(names)]


def write(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def test_several_files_each_by_its_name(tmp_path: Path) -> None:
    names = [
        write(tmp_path / "a.TXT", "\ufeffä\n\nb".encode()),
        write(tmp_path / "b.md", b"# h\np"),
        write(tmp_path / "c.jsonl", b'{"text": "line"}\n'),
        write(tmp_path / "README", b"plain"),
    ]
    assert texts(*names) == ["ä", "b", "h\np", "line", "plain"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\n one\n\ntwo", ["one", "two"]),
        (b'\n {"text": "one"}\n{"text": "two"}\n', ["one", "two"]),
        (b"", []),
        (b"\n\n", []),
    ],
)
def test_standard_input_is_text_or_json_lines(
    content: bytes, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(content)))
    assert texts("-") == expected


def test_what_is_not_utf8_is_named_with_its_byte(tmp_path: Path) -> None:
    name = write(tmp_path / "a.txt", "ä\n\nb".encode() + b"\xe9\n")
    with pytest.raises(InputError, match=r"a\.txt: byte 5 is not UTF-8"):
        texts(name)


def test_the_byte_is_counted_with_a_byte_order_mark(tmp_path: Path) -> None:
    name = write(tmp_path / "a.txt", b"\xef\xbb\xbf\xff")
    with pytest.raises(InputError, match="byte 3 is"):
        texts(name)


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LINE_BYTES", 10)
    with pytest.raises(InputError, match=r"a\.txt:2: longer than"):
        texts(write(tmp_path / "a.txt", b"123456789\n12345678901\n"))


def test_an_unknown_kind_of_file_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    names = [write(tmp_path / "a.txt", b"\xff"), write(tmp_path / "a.pdf", b"")]
    with pytest.raises(InputError, match=r"no reader for \.pdf files"):
        Sources(names)


def test_the_share_read_grows_to_one(tmp_path: Path) -> None:
    sources = Sources([write(tmp_path / "a.txt", b"one\n\ntwo\n\n")])
    assert sources.share_read == 0
    for _ in sources:
        pass
    assert sources.share_read == 1


def test_batches_are_bounded_and_hold_no_id_twice() -> None:
    ids = ["a", "b", None, "a", None, None, None, "c"]
    items = [make_item("p", {"text": "t", "id": own_id}) for own_id in ids]
    found = [[item.id for item in batch] for batch in batches(items, 4)]
    assert found == [["a", "b", None], ["a", None, None, None], ["c"]]


def test_no_batch_reaches_over_a_gap() -> None:
    items = [replace(make_item("p", {"text": "t"}), number=n) for n in (0, 1, 4, 5, 6, 7)]
    assert [[item.number for item in batch] for batch in batches(items, 3)] == [
        [0, 1],
        [4, 5, 6],
        [7],
    ]


def test_batches_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compose.items.REQUEST_BYTES", 40)
    items = [make_item("p", {"text": text}) for text in ("1" * 10, "2" * 10, "3" * 100, "4")]
    assert [len(batch) for batch in batches(items, 64)] == [1, 1, 1, 1]
