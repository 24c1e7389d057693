"""The planner spends the budget and loses nobody."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.plan import LEAST_BUDGETS, LEAST_POINTS, Size, cost, plan, plan_upserts

lengths_of_texts = st.lists(st.integers(min_value=0, max_value=600), max_size=200)
budgets = st.integers(min_value=1, max_value=4096)


def padded(lengths: list[int], batch: list[int]) -> int:
    return max(lengths[index] for index in batch) * len(batch)


def price(lengths: list[int], batches: list[list[int]], budget: int) -> float:
    return sum(cost(max(lengths[at] for at in batch), len(batch), budget) for batch in batches)


def all_plans(indices: list[int]) -> Iterator[list[list[int]]]:
    """Every way to cut a list into runs."""
    if not indices:
        yield []
    for length in range(1, len(indices) + 1):
        for rest in all_plans(indices[length:]):
            yield [indices[:length], *rest]


@given(lengths_of_texts, budgets)
def test_every_text_is_in_exactly_one_batch(lengths: list[int], budget: int) -> None:
    planned = [index for batch in plan(lengths, budget) for index in batch]
    assert sorted(planned) == list(range(len(lengths)))


@given(lengths_of_texts, budgets)
def test_padded_cost_stays_within_the_budget(lengths: list[int], budget: int) -> None:
    for batch in plan(lengths, budget):
        assert padded(lengths, batch) <= budget or len(batch) == 1


@given(lengths_of_texts, budgets)
def test_lengths_ascend_from_batch_to_batch(lengths: list[int], budget: int) -> None:
    planned = [lengths[index] for batch in plan(lengths, budget) for index in batch]
    assert planned == sorted(lengths)


@given(st.lists(st.integers(min_value=0, max_value=300), max_size=9), budgets)
def test_no_plan_of_runs_costs_less(lengths: list[int], budget: int) -> None:
    ascending = sorted(range(len(lengths)), key=lengths.__getitem__)
    allowed = (
        batches
        for batches in all_plans(ascending)
        if all(padded(lengths, batch) <= budget or len(batch) == 1 for batch in batches)
    )
    least = min(price(lengths, batches, budget) for batches in allowed)
    assert price(lengths, plan(lengths, budget), budget) == pytest.approx(least)


def test_sorting_saves_padding() -> None:
    lengths = [250, 10, 240, 12, 245, 11] * 10
    computed = sum(padded(lengths, batch) for batch in plan(lengths, 1024))
    assert computed <= 1.05 * sum(lengths)


def test_nothing_needs_no_batch() -> None:
    assert plan([], 100) == []


def test_a_text_beyond_the_budget_stands_alone() -> None:
    assert plan([5, 2000, 5], 100) == [[0, 2], [1]]


documents = st.lists(
    st.lists(st.integers(min_value=1, max_value=256), min_size=1, max_size=40).map(Size.of),
    max_size=120,
)


@given(documents, budgets)
def test_every_document_is_in_exactly_one_group(sizes: list[Size], budget: int) -> None:
    grouped = [index for group in plan_upserts(sizes, budget, 100) for index in group]
    assert sorted(grouped) == list(range(len(sizes)))


@given(documents, budgets, st.integers(min_value=1, max_value=300))
def test_a_group_has_at_most_the_points_of_a_call(
    sizes: list[Size], budget: int, most: int
) -> None:
    for group in plan_upserts(sizes, budget, most):
        assert sum(sizes[index].points for index in group) <= most or len(group) == 1


@given(documents, budgets)
def test_a_group_that_others_follow_is_worth_a_call(sizes: list[Size], budget: int) -> None:
    groups = plan_upserts(sizes, budget, 256)
    for group, following in pairwise(groups):
        points = sum(sizes[index].points for index in group)
        tokens = sum(sizes[index].tokens for index in group)
        worth_it = points >= LEAST_POINTS and tokens >= LEAST_BUDGETS * budget
        assert worth_it or points + sizes[following[0]].points > 256


@given(documents, budgets)
def test_the_longest_chunks_ascend_from_group_to_group(sizes: list[Size], budget: int) -> None:
    planned = [sizes[index].longest for group in plan_upserts(sizes, budget, 64) for index in group]
    assert planned == sorted(planned)
