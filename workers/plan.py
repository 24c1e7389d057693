"""The batch planner: which texts share a model call, and which documents a call of the store. Pure.

A model call pads every text to the longest one, so it costs `max(lengths) * len(lengths)` tokens.
Sorting by length keeps that close to the sum; the budget keeps the working set in the cache of a
CPU, or the memory of a GPU.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

LEAST_POINTS = 64
"""Of one call of the store, where more follow: Qdrant advises 64 to 256."""
LEAST_BUDGETS = 4
"""Model calls' worth of tokens in a group that is stored together, where more follow: so that the
last, smaller call of each group costs little."""


@dataclass(frozen=True, slots=True)
class Size:
    """A document as the planner sees it: how many points it becomes, and of how many tokens."""

    points: int
    tokens: int
    longest: int

    @classmethod
    def of(cls, lengths: Sequence[int]) -> Self:
        """The size of a document whose chunks have these tokens."""
        return cls(len(lengths), sum(lengths), max(lengths))


def plan(lengths: Sequence[int], budget_tokens: int) -> list[list[int]]:
    """Indices of `lengths`, each once, in micro-batches whose padded cost is within the budget.

    `lengths` are in tokens. Shortest first; a text that is longer than the budget stands alone.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        batch = batches[-1] if batches else []
        if batch and lengths[index] * (len(batch) + 1) <= budget_tokens:
            batch.append(index)
        else:
            batches.append([index])
    return batches


def plan_upserts(sizes: Sequence[Size], budget_tokens: int, max_points: int) -> list[list[int]]:
    """Indices of `sizes`, each once, in groups of up to `max_points` points.

    By their longest chunk, shortest first, so that each group has little padding. A group closes
    early when it is worth a call of the store and several of the model, so that the store works
    while the model does. A document of more points than `max_points` stands alone.
    """
    groups: list[list[int]] = []
    points = tokens = 0
    for index in sorted(range(len(sizes)), key=lambda index: sizes[index].longest):
        size = sizes[index]
        worth_it = points >= LEAST_POINTS and tokens >= LEAST_BUDGETS * budget_tokens
        if not groups or worth_it or points + size.points > max_points:
            groups.append([])
            points = tokens = 0
        groups[-1].append(index)
        points, tokens = points + size.points, tokens + size.tokens
    return groups
