"""What a worker decides before it forks."""

from types import SimpleNamespace
from typing import Any

import pytest

from tasks.settings import Settings
from workers import startup


@pytest.mark.parametrize(
    ("options", "forks", "children"),
    [({}, True, 3), ({"autoscale": "8,2"}, True, 8), ({"autoscale": 5}, True, 5), ({}, False, 1)],
)
def test_children_are_those_of_the_effective_flags(
    options: dict[str, Any], forks: bool, children: int
) -> None:
    worker = SimpleNamespace(options=options, concurrency=3)
    assert startup.count_children(worker, forks=forks) == children


def test_the_children_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "cpu_budget", lambda: SimpleNamespace(count=8))
    assert [startup.count_threads(Settings(), children) for children in (1, 3, 8, 9)] == [
        8,
        2,
        1,
        1,
    ]
    assert startup.count_threads(Settings(threads=5), 3) == 5
