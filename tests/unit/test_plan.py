"""The planner spends the budget and loses nobody."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from workers.plan import plan

lengths_of_texts = st.lists(st.integers(min_value=0, max_value=600), max_size=200)
budgets = st.integers(min_value=1, max_value=4096)


def cost(lengths: list[int], batch: list[int]) -> int:
    return max(lengths[index] for index in batch) * len(batch)


@given(lengths_of_texts, budgets)
def test_every_text_is_in_exactly_one_batch(lengths: list[int], budget: int) -> None:
    planned = [index for batch in plan(lengths, budget) for index in batch]
    assert sorted(planned) == list(range(len(lengths)))


@given(lengths_of_texts, budgets)
def test_padded_cost_stays_within_the_budget(lengths: list[int], budget: int) -> None:
    for batch in plan(lengths, budget):
        assert cost(lengths, batch) <= budget or len(batch) == 1


@given(lengths_of_texts, budgets)
def test_lengths_ascend_from_batch_to_batch(lengths: list[int], budget: int) -> None:
    planned = [lengths[index] for batch in plan(lengths, budget) for index in batch]
    assert planned == sorted(lengths)


@given(lengths_of_texts, budgets)
def test_no_batch_could_have_taken_the_next_text(lengths: list[int], budget: int) -> None:
    batches = plan(lengths, budget)
    for batch, following in pairwise(batches):
        assert cost(lengths, [*batch, following[0]]) > budget


def test_sorting_saves_padding() -> None:
    lengths = [250, 10, 240, 12, 245, 11] * 10
    padded = sum(cost(lengths, batch) for batch in plan(lengths, 1024))
    assert padded <= 1.05 * sum(lengths)


def test_nothing_needs_no_batch() -> None:
    assert plan([], 100) == []


def test_a_text_beyond_the_budget_stands_alone() -> None:
    assert plan([5, 2000, 5], 100) == [[0, 2], [1]]
