"""What holds a point back, told from what was seen while it worked. Pure."""

from dataclasses import dataclass
from enum import StrEnum

from compose.tuning.measurements import Round
from compose.tuning.points import Axis, Point, Space

BUSY = 0.85
"""Of all cores, or of a GPU: there is no more to be had."""
WAITING = 0.25
"""Of a pass' time, spent waiting for the store or for Redis."""


class Bound(StrEnum):
    GPU = "GPU-bound"
    STORE = "store-bound"
    QUEUE = "queue-bound"
    OVERSUBSCRIBED = "oversubscribed"
    CPU = "CPU-bound"
    SHARED = "short of CPU"
    MODEL = "model-bound"
    MEMORY = "memory-bound"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """In a word, and in a sentence with the figures."""

    bound: Bound
    sentence: str


def diagnose(space: Space, point: Point, seen: Round) -> Diagnosis:
    """From one round of steady work."""
    if space.gpus and seen.usage.gpu is not None and seen.usage.gpu >= BUSY:
        return Diagnosis(Bound.GPU, f"the GPU is busy {_percent(seen.usage.gpu)} of the time")
    if seen.usage.other_cores > seen.usage.own_cores and _is_busy(space, seen):
        return _cores(space, point, seen)  # servers that get no CPU answer slowly, too
    return _servers(seen) or _cores(space, point, seen)


def _servers(seen: Round) -> Diagnosis | None:
    shares = seen.work.shares
    store = shares.get("store_wait", 0.0)
    queue = shares.get("claim", 0.0) + shares.get("settle", 0.0)
    if max(store, queue) < WAITING:
        return None
    if store >= queue:
        return Diagnosis(Bound.STORE, f"passes wait for Qdrant {_percent(store)} of their time")
    return Diagnosis(Bound.QUEUE, f"passes spend {_percent(queue)} of their time with Redis")


def _is_busy(space: Space, seen: Round) -> bool:
    return seen.usage.own_cores + seen.usage.other_cores >= BUSY * space.cores


def _cores(space: Space, point: Point, seen: Round) -> Diagnosis:
    own, others, cores = seen.usage.own_cores, seen.usage.other_cores, space.cores
    model = f"the model takes {_percent(seen.work.shares.get('encode', 0.0))} of a pass"
    threads = point.concurrency * space.value(Axis.THREADS, point)
    if not _is_busy(space, seen):
        return Diagnosis(Bound.MODEL, f"{model}, and {own:.1f} of {cores} cores are busy")
    if threads > cores and own >= others and not space.gpus:
        what = f"{threads} threads compute on {cores} core{'s' * (cores > 1)}"
        return Diagnosis(Bound.OVERSUBSCRIBED, what)
    if own < BUSY * cores:
        what = f"other programs took {others:.1f} of {cores} cores meanwhile"
        return Diagnosis(Bound.SHARED, f"{what}, and {model}")
    return Diagnosis(Bound.CPU, f"{own:.1f} of {cores} cores are busy, and {model}")


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %")
