"""How far an ingestion came."""

import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compose import journal
from compose.items import Item, make_item
from compose.journal import Journal, Spans, journal_path


@given(st.lists(st.integers(0, 20)))
def test_spans_are_a_set_in_few_ranges(numbers: list[int]) -> None:
    spans = Spans()
    for number in numbers:
        spans.add(number)
    assert [number for number in range(22) if number in spans] == sorted(set(numbers))
    assert len(spans) == len(set(numbers))
    ranges = list(Spans(spans))
    assert all(left[1] < right[0] for left, right in pairwise(ranges))


def batch(*numbers: int) -> list[Item]:
    return [replace(make_item("p", {"text": str(n)}), number=n) for n in numbers]


def test_what_was_accepted_is_known_to_the_run_that_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "new" / "j.json"
    first = Journal(path)
    first.note(batch(0, 1))
    first.note(batch(5))
    first.save()
    assert not path.exists()  # only now and then
    first.save(now=True)
    second = Journal(path, resume=True)
    assert (second.before, second.found) == (3, 3)
    assert [number for number in range(7) if number in second] == [0, 1, 5]
    assert second.key(batch(2, 3)) == first.key(batch(2, 3)) != first.key(batch(3))
    anew = Journal(path)
    assert (anew.before, anew.found, 0 in anew) == (0, 3, False)
    assert anew.key(batch(2, 3)) != first.key(batch(2, 3))
    second.remove()
    second.save(now=True)
    assert Journal(path, resume=True).found == 0


@pytest.mark.parametrize("content", ["", "{", "[]", '{"run": "r", "spans": [1]}', '{"run": "r"}'])
def test_a_damaged_file_is_none(content: str, tmp_path: Path) -> None:
    path = tmp_path / "j.json"
    path.write_text(content)
    assert Journal(path, resume=True).found == 0


def test_without_a_place_to_write_it_goes_on_in_memory(tmp_path: Path) -> None:
    tmp_path.joinpath("file").touch()
    kept = Journal(tmp_path / "file" / "j.json")
    kept.note(batch(0))
    kept.save(now=True)
    assert not kept.resumable
    assert 0 in kept


def test_a_file_that_changed_or_other_options_are_another_ingestion(tmp_path: Path) -> None:
    name = str(tmp_path / "a.txt")
    Path(name).write_text("a")
    paths = {journal_path(tmp_path, [name], {"collection": own}) for own in ("c", "d", "c")}
    Path(name).write_text("ab")
    assert len(paths | {journal_path(tmp_path, [name], {"collection": "c"})}) == 3


def test_journals_of_long_ago_go(tmp_path: Path) -> None:
    old, new = (tmp_path / journal.FOLDER / name for name in ("old.json", "new.json"))
    old.parent.mkdir()
    old.touch()
    new.touch()
    os.utime(old, (0, 0))
    journal_path(tmp_path, [], {})
    assert not old.exists()
    assert new.exists()
