"""The batch planner: which texts share a model call. Pure; the pipeline imports it.

A call pads every text to the longest one, so it costs `max(lengths) * len(lengths)` tokens. Sorting
by length keeps that close to the sum; the budget keeps the working set in the cache of a CPU, or
the memory of a GPU.
"""

from collections.abc import Sequence


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
