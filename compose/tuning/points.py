"""The settings that are tuned: a point has a value for each, a space says which there are. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

PREFETCH = 64
PREFETCHES = (1, 8, 64, 256)
FACTORS = (0.25, 0.5, 1, 2, 4, 8)
"""Of the encoder's own token budget."""
MOST_CHILDREN_PER_CORE = 4
CHILDREN_PER_GPU = (1, 2, 4)


class Axis(StrEnum):
    """What is varied, in this order; the name is that of the setting."""

    CONCURRENCY = "concurrency"
    BATCH_TOKENS = "batch_tokens"
    THREADS = "threads"
    PREFETCH = "prefetch_multiplier"


@dataclass(frozen=True, slots=True)
class Point:
    """One worker's settings; None is what Embedmill chooses by itself."""

    concurrency: int
    threads: int | None = None
    batch_tokens: int | None = None
    prefetch: int = PREFETCH

    def environment(self) -> dict[str, str]:
        """For a worker that is started with `flags`: an empty value counts as unset."""
        return {
            "EMBED_CONCURRENCY": "",
            "EMBED_PREFETCH_MULTIPLIER": "",
            "EMBED_THREADS": str(self.threads or ""),
            "EMBED_BATCH_TOKENS": str(self.batch_tokens or ""),
        }

    def flags(self) -> tuple[str, ...]:
        """Celery's own."""
        return ("-c", str(self.concurrency), "--prefetch-multiplier", str(self.prefetch))

    def changes(self, default: "Point") -> dict[str, str]:
        """The settings that make this point of a default one; empty values unset one."""
        pairs = {
            "EMBED_CONCURRENCY": (self.concurrency, default.concurrency),
            "EMBED_THREADS": (self.threads, default.threads),
            "EMBED_BATCH_TOKENS": (self.batch_tokens, default.batch_tokens),
            "EMBED_PREFETCH_MULTIPLIER": (self.prefetch, default.prefetch),
        }
        return {name: "" if own == usual else str(own) for name, (own, usual) in pairs.items()}

    def __str__(self) -> str:
        parts = [f"-c {self.concurrency}"]
        if self.threads:
            parts.append(f"{self.threads} thread{'s' * (self.threads > 1)} each")
        if self.batch_tokens:
            parts.append(f"{self.batch_tokens:,} tokens")
        if self.prefetch != PREFETCH:
            parts.append(f"prefetch {self.prefetch}")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Space:
    """What may be tried on a machine: `children` ascending, `budget_tokens` the encoder's own.

    `gpus` 0: the model runs on the CPU, and children times threads stay within the cores unless
    there are more children than cores.
    """

    cores: int
    gpus: int
    budget_tokens: int
    children: Sequence[int]

    @property
    def default(self) -> Point:
        """What Embedmill does without any setting."""
        return Point(self.gpus or self.cores if len(self.children) > 1 else self.children[0])

    def line(self, axis: Axis, point: Point) -> list[Point]:
        """All points of the axis through `point`, which is one of them, by rising value."""
        return sorted(set(self._line(axis, point)), key=lambda at: self.value(axis, at))

    def value(self, axis: Axis, point: Point) -> int:
        """As a number, also where it is left to Embedmill."""
        if axis is Axis.CONCURRENCY:
            return point.concurrency
        if axis is Axis.PREFETCH:
            return point.prefetch
        if axis is Axis.BATCH_TOKENS:
            return point.batch_tokens or self.budget_tokens
        return point.threads or self.usual_threads(point)

    def usual_threads(self, point: Point) -> int:
        """Of each child, where none are set."""
        return max(1, self.cores // point.concurrency)

    def _line(self, axis: Axis, point: Point) -> Iterator[Point]:
        yield point
        if axis is Axis.CONCURRENCY:
            # threads follow the children: those of another number of children mean nothing here
            yield from (replace(point, concurrency=count, threads=None) for count in self.children)
        elif axis is Axis.BATCH_TOKENS:
            sizes = {int(self.budget_tokens * factor) for factor in FACTORS}
            for size in sizes:
                own = None if size == self.budget_tokens else size
                yield replace(point, batch_tokens=own)
        elif axis is Axis.THREADS:
            usual = self.usual_threads(point)
            for count in [] if self.gpus else _doublings(usual):
                yield replace(point, threads=None if count == usual else count)
        else:
            yield from (replace(point, prefetch=count) for count in PREFETCHES)


def space_of(cores: int, gpus: int, budget_tokens: int, *, forks: bool = True) -> Space:
    """`forks` False: the model runs in one process only, as on Apple's GPUs."""
    if not forks:
        children: Sequence[int] = (1,)
    elif gpus:
        children = [gpus * count for count in CHILDREN_PER_GPU]
    else:
        few = max(1, cores // 8)
        counts = {few * 2**step for step in range(12)} | {cores}
        children = sorted(count for count in counts if count <= MOST_CHILDREN_PER_CORE * cores)
    return Space(cores, gpus, budget_tokens, tuple(children))


def _doublings(most: int) -> Iterator[int]:
    """1, 2, 4 and so on up to `most`, which is among them."""
    count = 1
    while count < most:
        yield count
        count *= 2
    yield most
