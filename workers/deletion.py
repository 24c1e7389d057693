"""Documents that go from the store. The child's resources (`workers.process`) call it.

A deletion has an acceptance number, as a text has: it removes what was accepted before it. Texts
that arrive late find it in the ledger and remove what they wrote, see
docs/decisions/0016-deletions.md.
"""

from collections.abc import Sequence

from tasks.errors import StoreRejected
from tasks.messages import Outcome, PlacedDocument
from workers.pipeline import fail
from workers.upserts import VectorStore


def remove(
    documents: Sequence[PlacedDocument], collection: str, store: VectorStore
) -> list[Outcome]:
    """One outcome each, in their order; what is not there is deleted, too. Raises StoreDown."""
    numbers: dict[str, int] = {}
    for placed in documents:
        number = placed.overtaken_by or placed.sequence
        numbers[placed.document.id] = max(number, numbers.get(placed.document.id, 0))
    try:
        store.delete(collection, numbers)
    except StoreRejected as error:
        return [fail(placed, error) for placed in documents]
    return [Outcome(placed.index, placed.document.id, "done") for placed in documents]
