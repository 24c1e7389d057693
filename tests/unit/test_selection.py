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


@pytest.mark.parametrize(
    "given", ["a", "a/**/*.md", "a/**", "a/*", "a/*/*.md", "**/*.md", "[a]/**"]
)
def test_links_to_folders_are_not_followed(given: str, folder: Path) -> None:
    """A link to a folder above gave its files again on each of forty levels."""
    (folder / "a/x.md").touch()
    (folder / "a/b/y.md").touch()
    (folder / "a/round").symlink_to(".")
    names = {name for name in chosen(given).names if name.endswith(".md")}
    assert names <= {"a/x.md", "a/b/y.md"}
    assert "a/b/y.md" in names


@pytest.mark.parametrize("given", ["link", "link/*", "link/**/*", "*/../link/*", "./link/**"])
def test_but_where_they_are_named(given: str, folder: Path) -> None:
    (folder / "link").symlink_to("a")
    assert {Path(name).name for name in chosen(given).names} == {"z.MD", "d.txt"}


def test_a_link_to_a_file_is_a_file(folder: Path) -> None:
    (folder / "link.txt").symlink_to("b.txt")
    assert chosen("*.txt").names == chosen("**/[bl]*.txt").names == ("b.txt", "link.txt")


def test_patterns_may_begin_at_the_root(folder: Path) -> None:
    assert chosen(f"{folder}/**/*.MD").names == (f"{folder}/a/z.MD",)
