"""How many of the sample's texts a pass and the private queue hold. Pure.

`compose.tuning` alone imports it.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import orjson

from compose.errors import StackError
from tasks.messages import MESSAGE_BYTES
from tasks.settings import Settings
from workers.batching import BYTES_PER_TOKEN, CPU_HANDOVER, GPU_HANDOVER

NUMBERS_BYTES = 16
"""Of a document's id, and of the number that a text gets when it comes again."""
TURNS_BESIDE = 2
"""Turns of all children in a backlog beside the window: before it, and while it ends."""
LEAST_TURNS = 2
"""Of a window: whole turns, as children in step settle all at once."""


class Sizes:
    """Of the texts from the sample's beginning on, again and again, as the queue's limit counts
    them."""

    def __init__(self, texts: Sequence[str]) -> None:
        rows = (orjson.dumps({"id": "", "text": text}) for text in texts)
        self._ends = list(accumulate(len(row) + NUMBERS_BYTES for row in rows))

    @property
    def mean_bytes(self) -> float:
        return self._ends[-1] / len(self._ends)

    def bytes_of(self, count: int) -> int:
        """What so many texts take."""
        rounds, rest = divmod(count, len(self._ends))
        return rounds * self._ends[-1] + (self._ends[rest - 1] if rest else 0)

    def count_within(self, limit_bytes: int) -> int:
        """How many texts fit."""
        rounds, rest = divmod(limit_bytes, self._ends[-1])
        return rounds * len(self._ends) + bisect_right(self._ends, rest)

    def pass_texts(self, settings: Settings, *, gpus: int) -> int:
        """Texts that a child is handed together: a handover's, or a message's where that is more
        bytes; one at least."""
        documents, tokens = GPU_HANDOVER if gpus else CPU_HANDOVER
        handover_bytes = (settings.handover_tokens or tokens) * BYTES_PER_TOKEN
        fitting = int(max(handover_bytes, MESSAGE_BYTES) / self.mean_bytes)
        return max(1, min(settings.handover_documents or documents, fitting))

    def least_bytes(self, unit: int) -> int:
        """Of the smallest backlog for children that hold `unit` texts together."""
        return self.bytes_of((LEAST_TURNS + TURNS_BESIDE) * unit)

    def fit_window(self, unit: int, window: int, limit_bytes: int) -> int:
        """The window in texts, shorter where its backlog would not fit into the queue.

        Raises StackError when not even the shortest does.
        """
        turns = self.count_within(limit_bytes) // unit - TURNS_BESIDE
        if turns < LEAST_TURNS:
            raise StackError(
                f"the {(LEAST_TURNS + TURNS_BESIDE) * unit:,} texts that one round needs take "
                f"{self.least_bytes(unit) / 1e6:,.0f} MB, and the private queue has room for "
                f"{limit_bytes / 1e6:,.0f} MB: take shorter texts, or free memory"
            )
        return min(window, turns * unit)
