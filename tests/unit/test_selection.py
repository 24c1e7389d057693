"""Names, folders and patterns as files."""

from pathlib import Path

import pytest

from compose.errors import InputError
from compose.selection import Selection, select

SUFFIXES = frozenset({".txt", ".md"})
FILES = ("b.txt", "a/z.MD", "a/c.pdf", "a/LICENSE", "a/.hidden.txt", ".git/x.txt", "a/b/d.txt")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in FILES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def chosen(*given: str) -> Selection:
    return select(given, SUFFIXES)


@pytest.mark.parametrize("given", [".", "*", "**/*", "**"])
def test_all_below_is_taken_sorted_and_hidden_files_are_not(given: str, folder: Path) -> None:
    selection = chosen(given)
    names = [name.removeprefix("./") for name in selection.names]
    assert names == ["a/b/d.txt", "a/z.MD", "b.txt"]
    assert str(selection) == "skipped 2 files: 1 without suffix, 1 .pdf"


def test_names_stay_in_their_order_and_are_taken_once(folder: Path) -> None:
    assert chosen("b.txt", "-", "a", "b.txt", "a/z.MD").names == (
        "b.txt",
        "-",
        "a/b/d.txt",
        "a/z.MD",
    )


def test_a_name_stands_for_itself(folder: Path) -> None:
    (folder / "[1]*.txt").touch()
    selection = chosen("[1]*.txt", "a/LICENSE", "a/.hidden.txt")
    assert selection.names == ("[1]*.txt", "a/LICENSE", "a/.hidden.txt")
    assert str(selection) == ""


@pytest.mark.parametrize("given", ["absent.txt", "*.json"])
def test_what_is_not_there_is_named(given: str, folder: Path) -> None:
    with pytest.raises(InputError) as caught:
        chosen(given)
    assert caught.value.detail.startswith(given)
