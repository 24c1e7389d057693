"""The arithmetic of the benchmark: medians, percentiles, paired ratios. Pure."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Ratio:
    """Ours over theirs: the median of the rounds' ratios, and the medians of both sides.

    A round's two runs stand beside each other in time, so that what else the machine does meanwhile
    meets both; the ratio of two medians would mix rounds.
    """

    value: float
    lowest: float
    highest: float
    ours: float
    theirs: float
    rounds: int

    def as_details(self) -> dict[str, float]:
        return {name: round(value, 4) for name, value in asdict(self).items()}


def pair(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """The paired ratio of two sides' rates. Raises ValueError unless they have as many rounds."""
    ratios = [our / their for our, their in zip(ours, theirs, strict=True)]
    if not ratios:
        raise ValueError("no rounds")
    return Ratio(
        value=median(ratios),
        lowest=min(ratios),
        highest=max(ratios),
        ours=median(ours),
        theirs=median(theirs),
        rounds=len(ratios),
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """Between the two nearest values, as numpy does it."""
    return float(np.percentile(np.asarray(values, dtype=np.float64), percent))


def cosines(left: Floats, right: Floats) -> NDArray[np.float64]:
    """The cosine of each row of one with the same row of the other, both (texts, dimension)."""
    one, other = left.astype(np.float64), right.astype(np.float64)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    found: NDArray[np.float64] = np.einsum("ij,ij->i", one, other) / lengths
    return found


def top_overlap(left: Floats, right: Floats, top: int = 10) -> float:
    """How many of each text's `top` nearest others are the same on both sides, as a share."""
    ours, theirs = _nearest(left, top), _nearest(right, top)
    shared = [len(set(a) & set(b)) for a, b in zip(ours.tolist(), theirs.tolist(), strict=True)]
    return float(sum(shared) / (len(shared) * ours.shape[1]))


def _nearest(vectors: Floats, top: int) -> NDArray[np.int64]:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = unit @ unit.T
    np.fill_diagonal(scores, -np.inf)
    found: NDArray[np.int64] = np.argsort(-scores, axis=1)[:, : min(top, len(vectors) - 1)]
    return found
