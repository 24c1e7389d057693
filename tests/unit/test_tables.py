"""CSV and Parquet as documents."""

import sys
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pyarrow
import pyarrow.parquet
import pytest

from compose import tables
from compose.errors import InputError
from compose.reading import Sources
from compose.tables import Columns


def read(path: Path, columns: Columns | None = None) -> list[dict[str, Any]]:
    return [orjson.loads(item.body) for item in Sources([str(path)], columns)]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="")
    return path


def write_parquet(path: Path, columns: dict[str, list[Any]], rows_of_a_group: int = 2) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=rows_of_a_group)
    return path


def test_a_csv_row_is_a_document_and_its_other_columns_are_metadata(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", '\ufeffid,text,lang\r\n1,"a ""b"",\r\nc",en\r\n,d,\r\n\r\n')
    assert read(path) == [
        {"text": 'a "b",\r\nc', "id": "1", "metadata": {"lang": "en"}},
        {"text": "d", "metadata": {"lang": ""}},
    ]
    assert [item.place for item in Sources([str(path)])] == [f"{path}:2", f"{path}:4"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimiters_are_told_by_the_header(delimiter: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", f"{delimiter}Body{delimiter}key\n0{delimiter}a{delimiter}k\n")
    assert read(path, Columns("Body", "key")) == [
        {"text": "a", "id": "k", "metadata": {"column 1": "0"}}
    ]


def test_rows_without_a_text_are_passed_over_and_counted(tmp_path: Path) -> None:
    sources = Sources([str(write(tmp_path / "a.csv", "text,n\n ,1\na,2\n,3\n"))])
    assert len(list(sources)) == 1
    assert sources.rows_without_text == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("body,n\na,1\n", "there is no column 'text'; name another with --text-column: body, n"),
        ("text,n,n\na,1,2\n", "there are two columns 'n'"),
        ("text,n\na,1\nb\n", ":3: 1 fields, the header has 2"),
        ('text,n\na,1\n"b,2\nc,3\n', ":3: not CSV: "),
        ('text\n"a"b\n', ":2: not CSV: "),
    ],
)
def test_bad_csv_is_named(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read(write(tmp_path / "a.csv", text))
    assert said in caught.value.detail


def test_a_field_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "BLOCK_BYTES", 100)
    with pytest.raises(InputError, match="field larger than"):
        read(write(tmp_path / "a.csv", 'text\n"' + "word\n" * 50))


def test_an_empty_csv_has_no_documents(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.csv", "")) == []


def test_a_parquet_row_is_a_document(tmp_path: Path) -> None:
    path = write_parquet(
        tmp_path / "a.parquet",
        {
            "text": ["a", None, "b", "c"],
            "id": [1, 2, None, 4],
            "day": [date(2026, 1, 2), None, None, None],
            "price": [Decimal("1.50"), None, None, None],
            "tags": [["x"], [], None, ["y", "z"]],
        },
    )
    sources = Sources([str(path)])
    nothing = {"day": None, "price": None}
    assert [orjson.loads(item.body) for item in sources] == [
        {"text": "a", "id": "1", "metadata": {"day": "2026-01-02", "price": "1.50", "tags": ["x"]}},
        {"text": "b", "metadata": nothing | {"tags": None}},
        {"text": "c", "id": "4", "metadata": nothing | {"tags": ["y", "z"]}},
    ]
    assert (sources.rows_without_text, sources.share_read) == (1, 1)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"text": [1]}, ":1: the text is not a string but int"),
        ({"text": ["a"], "raw": [b"\xff"]}, ":1: metadata that is not JSON"),
        ({"body": ["a"]}, "there is no column 'text'"),
    ],
)
def test_bad_parquet_is_named(columns: dict[str, list[Any]], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read(write_parquet(tmp_path / "a.parquet", columns))
    assert said in caught.value.detail


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["x", "", None], ["x", None, None]),
        ([1.0, float("nan"), None], ["1", None, None]),
        ([2.0**53 - 1, -3.0, 0.0], ["9007199254740991", "-3", "0"]),
        ([2**60 + 1, 0, None], ["1152921504606846977", "0", None]),
    ],
)
def test_ids_are_strings_and_whole_numbers(
    ids: list[Any], expected: list[str | None], tmp_path: Path
) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"text": ["a", "b", "c"], "id": ids})
    assert [document.get("id") for document in read(path)] == expected


@pytest.mark.parametrize(
    ("own_id", "kind"),
    [
        (["x"], "list"),
        ({"x": 1}, "dict"),
        (b"b", "bytes"),
        (True, "bool"),
        (1.5, "float 1.5"),
        (2.0**53, "float 9007199254740992.0"),
        (float("inf"), "float inf"),
    ],
)
def test_other_ids_are_refused(own_id: object, kind: str, tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"text": ["a", "b"], "id": [None, own_id]})
    with pytest.raises(InputError) as caught:
        read(path)
    assert caught.value.detail == f"{path}:2: an id is a string or a whole number, not {kind}"


def test_what_is_no_parquet_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        read(write(tmp_path / "a.parquet", "text"))


def test_without_pyarrow_a_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install 'embedmill\[parquet\]'"):
        read(write(tmp_path / "a.parquet", ""))
