"""What one pass of the model did and how long each part of it took, as one value.

The pipeline and its neighbours fill it in; `workers.publishing` adds it to the sums. It knows
neither Celery nor torch nor Redis.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

from tasks.statistics import STAGES


@dataclass(slots=True)
class Timings:
    """Counts, in which unchanged texts are not, and seconds by stage. `computed_tokens` include
    `padding_tokens`; `queue_waits_s` has one entry a message: from its job's acceptance to its
    claim."""

    texts: int = 0
    points: int = 0
    model_calls: int = 0
    computed_tokens: int = 0
    padding_tokens: int = 0
    queue_waits_s: list[float] = field(default_factory=list)
    # all keys from the beginning: the thread that upserts writes beside the one that encodes
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys((*STAGES, "pass"), 0.0))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the block's duration to a stage, or to the whole `pass`."""
        began_s = perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += perf_counter() - began_s

    def reassign(self, seconds: float, stage: str, to: str) -> None:
        """So much of a stage's time belonged to another one."""
        self.seconds[stage] -= seconds
        self.seconds[to] += seconds

    def count_model_call(self, lengths: Sequence[int]) -> None:
        """A call pads its texts, of these tokens, to the longest."""
        computed = max(lengths, default=0) * len(lengths)
        self.model_calls += 1
        self.computed_tokens += computed
        self.padding_tokens += computed - sum(lengths)
