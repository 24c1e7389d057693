"""Which text of a document is in the store: the last accepted one wins, whatever arrives when.

Pure: `workers.store` asks after each write. A point carries its document's acceptance number as
`sequence`; a write is conditional on it, and what the condition held back shows afterwards.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from workers.upserts import Point, Stored


@dataclass(frozen=True, slots=True)
class Leftover:
    """Points of a document that are older than `sequence`: of an earlier text, or a late one."""

    document_id: str
    sequence: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is still to do: points to write by themselves, and leftovers to delete."""

    refused: Sequence[Sequence[Point]]
    leftovers: Sequence[Leftover]


def lowest_sequence(points: Iterable[Point]) -> int:
    """Whatever is older than this is older than all of these points."""
    return min(sequence(point) for point in points)


def judge(written: Sequence[Point], stored: Iterable[Stored]) -> Verdict:
    """Compare what was written, if it was newer than what was there, with what is there now.

    A document of which something newer stands in the store was overtaken: its own points, if any
    got in, are leftovers. Of the others each point must be there; one that is not was refused by
    a condition that was stricter than its own number, and is to be written again.
    """
    found: dict[str, list[Stored]] = defaultdict(list)
    for row in stored:
        found[row.document_id].append(row)
    refused, leftovers = [], []
    for document_id, points in _by_document(written).items():
        own, rows = sequence(points[0]), found[document_id]
        newest = max([own, *(row.sequence for row in rows)])
        if newest == own:
            present = {row.point_id for row in rows if row.sequence == own}
            missing = [point for point in points if point.id not in present]
            if missing:
                refused.append(missing)
        if any(row.sequence < newest for row in rows):
            leftovers.append(Leftover(document_id, newest))
    return Verdict(refused, leftovers)


def owners(points: Iterable[Point]) -> set[str]:
    """The ids of their documents."""
    return {str(point.payload["document_id"]) for point in points}


def sequence(point: Point) -> int:
    """Its document's acceptance number."""
    return int(point.payload["sequence"])


def _by_document(points: Iterable[Point]) -> dict[str, list[Point]]:
    found: dict[str, list[Point]] = defaultdict(list)
    for point in points:
        found[str(point.payload["document_id"])].append(point)
    return found
