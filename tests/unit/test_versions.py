"""The last accepted text wins: what is left to do after a conditional write."""

from random import Random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from workers.upserts import Point, Stored
from workers.versions import Leftover, judge, lowest_sequence

VECTOR = np.zeros(2, np.float32)


def point(document: str, chunk: int, sequence: int) -> Point:
    payload = {"document_id": document, "chunk": chunk, "sequence": sequence}
    return Point(f"{document}-{chunk}", VECTOR, payload)


def stored(document: str, chunk: int, sequence: int) -> Stored:
    return Stored(f"{document}-{chunk}", document, sequence)


def test_what_is_there_as_written_needs_nothing() -> None:
    verdict = judge([point("a", 0, 5)], [stored("a", 0, 5)])
    assert (verdict.refused, verdict.leftovers) == ([], [])


def test_an_overtaken_text_leaves_nothing() -> None:
    written = [point("a", 0, 5), point("a", 1, 5)]
    verdict = judge(written, [stored("a", 0, 9), stored("a", 1, 5)])
    assert (verdict.refused, verdict.leftovers) == ([], [Leftover("a", 9)])


def test_chunks_of_an_earlier_text_are_leftovers() -> None:
    verdict = judge([point("a", 0, 5)], [stored("a", 0, 5), stored("a", 1, 3)])
    assert (verdict.refused, verdict.leftovers) == ([], [Leftover("a", 5)])


def test_a_point_that_a_stricter_condition_held_back_is_written_again() -> None:
    written = [point("old", 0, 2), point("a", 0, 5)]
    verdict = judge(written, [stored("old", 0, 2), stored("a", 0, 3)])
    assert verdict.refused == [[written[1]]]
    assert verdict.leftovers == [Leftover("a", 5)]


texts = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4)), min_size=1, max_size=6)


class Store:
    """A store with conditional writes, as Qdrant has."""

    def __init__(self) -> None:
        self.points: dict[str, Stored] = {}

    def put(self, points: list[Point]) -> None:
        below = lowest_sequence(points)
        for one in points:
            there = self.points.get(one.id)
            if there is None or there.sequence < below:
                payload = one.payload
                self.points[one.id] = Stored(one.id, payload["document_id"], payload["sequence"])

    def write(self, points: list[Point]) -> None:
        self.put(points)
        verdict = judge(points, self.points.values())
        for refused in verdict.refused:
            self.put(list(refused))
        for leftover in verdict.leftovers:
            self.points = {
                key: row
                for key, row in self.points.items()
                if row.document_id != leftover.document_id or row.sequence >= leftover.sequence
            }


@given(texts, st.randoms())
def test_whatever_arrives_when_the_last_accepted_text_is_left(
    chunks: list[tuple[int, int]], chance: Random
) -> None:
    """Each text is (document, chunks), accepted in this order, delivered in any, some twice."""
    versions = [
        [point(f"d{document}", chunk, number + 1) for chunk in range(count)]
        for number, (document, count) in enumerate(chunks)
    ]
    deliveries = [*versions, *versions[:2]]
    chance.shuffle(deliveries)
    store = Store()
    while deliveries:
        batch: dict[str, list[Point]] = {}
        for _ in range(chance.randint(1, 3)):
            if deliveries:
                version = deliveries.pop()
                document = version[0].payload["document_id"]
                newest = max(
                    batch.get(document, version), version, key=lambda v: v[0].payload["sequence"]
                )
                batch[document] = newest
        store.write([one for version in batch.values() for one in version])
    last = {version[0].payload["document_id"]: version for version in versions}
    expected = {one.id: one.payload["sequence"] for version in last.values() for one in version}
    assert {key: row.sequence for key, row in store.points.items()} == expected
