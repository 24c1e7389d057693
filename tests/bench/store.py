"""The benchmark's own look into Qdrant: how many points there are, and whether they are right."""

import time
from collections.abc import Sequence

import numpy as np
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from tests.bench.figures import Floats, cosines
from tests.bench.results import BenchError

POLL_S = (0.02, 0.5)
"""Least and most: a count costs the server CPU, so it is asked seldom until the end is near."""
STALL_S = 120.0
LEAST_COSINE = 0.999
SCROLL_POINTS = 500


class Store:
    """A client of one side's Qdrant."""

    def __init__(self, url: str) -> None:
        self._client = QdrantClient(url=url, check_compatibility=False, timeout=60)

    def close(self) -> None:
        self._client.close()

    def create(self, collection: str, dimension: int) -> None:
        """For baselines, before their clock starts; ours makes its own within the clock."""
        self._client.create_collection(
            collection,
            vectors_config=models.VectorParams(size=dimension, distance=models.Distance.COSINE),
        )

    def count(self, collection: str) -> int:
        """0 while it does not exist."""
        try:
            return self._client.count(collection, exact=True).count
        except UnexpectedResponse as error:
            if error.status_code == 404:
                return 0
            raise

    def wait_for(self, collection: str, points: int) -> float:
        """Until there are so many; the moment, by the monotonic clock.

        Raises BenchError when nothing is added for two minutes.
        """
        began_s = last_change_s = time.monotonic()
        last = -1
        while (found := self.count(collection)) < points:
            now_s = time.monotonic()
            if found != last:
                last, last_change_s = found, now_s
            elif now_s - last_change_s > STALL_S:
                raise BenchError(f"{found} of {points} points after {STALL_S:.0f} s of nothing")
            left_s = (now_s - began_s) * (points - found) / max(found, 1)
            time.sleep(min(max(left_s / 4, POLL_S[0]), POLL_S[1]))
        return time.monotonic()

    def read_all(self, collection: str) -> dict[str, Floats]:
        """Vectors by their texts. Raises BenchError when a text has two points."""
        found: dict[str, Floats] = {}
        offset = None
        while True:
            records, offset = self._client.scroll(
                collection,
                limit=SCROLL_POINTS,
                offset=offset,
                with_payload=["text"],
                with_vectors=True,
            )
            for record in records:
                text = str((record.payload or {})["text"])
                if text in found:
                    raise BenchError(f"{collection} has a text twice")
                found[text] = np.asarray(record.vector, dtype=np.float32)
            if offset is None:
                return found


def check_points(
    found: dict[str, Floats], texts: Sequence[str], reference: dict[str, Floats]
) -> float:
    """Every text is there once, and the vectors are those of bare encode.

    The lowest cosine of the sample that `reference` has. Raises BenchError below 0.999.
    """
    if found.keys() != set(texts):
        raise BenchError(f"{len(found)} texts are in the store, {len(set(texts))} were sent")
    shared = [text for text in texts if text in reference]
    stored = np.stack([found[text] for text in shared])
    lowest = float(cosines(stored, np.stack([reference[text] for text in shared])).min())
    if lowest < LEAST_COSINE:
        raise BenchError(f"a vector differs from bare encode's: cosine {lowest:.4f}")
    return lowest
