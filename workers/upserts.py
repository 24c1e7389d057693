"""Points on their way to the store: groups in order, each stored while the next is encoded.

The pipeline writes to it. It knows the store as a protocol only.
"""

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from tasks.errors import EmbedError, ModelMismatch, StoreRejected
from tasks.messages import ModelCard
from tasks.queries import Search
from workers.isolation import together_or_alone
from workers.timings import Timings

MAX_POINTS = 256
"""Points of one call at most; Qdrant advises 64 to 256, and 256 of 384 floats are 2 MB of JSON."""


@dataclass(frozen=True, slots=True)
class Point:
    """A vector with its id (a UUID) and payload."""

    id: str
    vector: NDArray[np.float32]
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stored:
    """A point as it stands in the store, of a document of so many `chunks`."""

    point_id: str
    document_id: str
    sequence: int
    chunks: int = 0
    fingerprint: str = ""


class VectorStore(Protocol):
    """Where points go."""

    def ensure_collection(self, name: str, card: ModelCard) -> None:
        """Make the collection if it is absent. Raises ModelMismatch, StoreDown, StoreRejected."""
        ...

    def read(self, collection: str, document_ids: Collection[str]) -> Sequence[Stored]:
        """All points of these documents. Raises StoreDown, StoreRejected."""
        ...

    def upsert(self, collection: str, points: Sequence[Point]) -> None:
        """Returns when the points are stored. Raises StoreDown, StoreRejected, ModelMismatch."""
        ...

    def delete(self, collection: str, numbers: Mapping[str, int]) -> None:
        """Remove documents, by their ids, as far as they are older than these acceptance numbers.

        Raises StoreDown, StoreRejected.
        """
        ...

    def close(self) -> None: ...


class SearchIndex(Protocol):
    """Where points are found."""

    def search(
        self, search: Search, vector: NDArray[np.float32], card: ModelCard
    ) -> list[dict[str, Any]]:
        """The nearest points, best first: `id`, `score` (cosine) and `payload` each.

        One try, as somebody waits. Raises CollectionNotFound, ModelMismatch, StoreDown,
        StoreRejected.
        """
        ...


class Upserts:
    """One call at a time, in a thread of its own if `overlap`; leaving the block waits for the
    last. `write` and leaving raise StoreDown when the store stays away."""

    def __init__(
        self, store: VectorStore, collection: str, timings: Timings, *, overlap: bool
    ) -> None:
        self.refused: dict[int, EmbedError] = {}
        """What kept a document from the store, by its position; whole after the block."""
        self._store, self._collection, self._timings = store, collection, timings
        self._executor = ThreadPoolExecutor(1, "upsert") if overlap else None
        self._under_way: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._timings.stage("store_wait"):
            if self._executor is not None:
                self._executor.shutdown()
            if error is None:
                self._wait()

    def write(self, points: Mapping[int, Sequence[Point]]) -> None:
        """Store the points of documents, by their positions; waits for the call before."""
        with self._timings.stage("store_wait"):
            if self._executor is None:
                self._store_all(points)
                return
            self._wait()
        self._under_way = self._executor.submit(self._store_all, points)

    def _wait(self) -> None:
        if self._under_way is not None:
            self._under_way.result()

    def _store_all(self, points: Mapping[int, Sequence[Point]]) -> None:
        def upsert(positions: Sequence[int]) -> list[None]:
            flat = [point for at in positions for point in points[at]]
            for start in range(0, len(flat), MAX_POINTS):
                self._store.upsert(self._collection, flat[start : start + MAX_POINTS])
            return [None] * len(positions)

        if not points:
            return
        self._timings.points += sum(map(len, points.values()))
        with self._timings.stage("upsert"):
            results = together_or_alone(upsert, list(points), (StoreRejected, ModelMismatch))
        self.refused.update(
            (at, result) for at, result in zip(points, results, strict=True) if result is not None
        )
