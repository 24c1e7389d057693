"""Which documents are in the store already, just as they would be written again. Pure.

The pipeline asks before it embeds. A point carries a fingerprint of what its document was made
from. That a document stands there is not enough to leave it alone: nobody may still write another
content under an older number, see docs/decisions/0015-unchanged-documents.md.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence

import orjson

from tasks.messages import Document, Options, PlacedDocument
from workers.encoder import Encoder
from workers.upserts import Stored


def fingerprint(document: Document, options: Options, encoder: Encoder) -> str:
    """32 hex digits over all that decides what a document's points are; empty where that cannot be
    written as JSON, which the store will refuse."""
    card = encoder.card
    model = [card.name, card.dimension, card.max_tokens, encoder.recipe]
    made_from = [document.text, document.metadata, options.on_long, model]
    try:
        encoded = orjson.dumps(made_from, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        return ""
    return hashlib.blake2b(encoded, digest_size=16).hexdigest()


def find_unchanged(
    documents: Sequence[PlacedDocument],
    options: Options,
    encoder: Encoder,
    stored: Iterable[Stored],
) -> set[int]:
    """Positions of the documents that need no work. `stored` has all points of them.

    Stored whole, by an acceptance that is older: with its own number it is a delivery that may
    have been cut off before what is left of earlier texts was removed.
    """
    found: dict[str, list[Stored]] = defaultdict(list)
    for row in stored:
        found[row.document_id].append(row)
    return {
        at
        for at, placed in enumerate(documents)
        if placed.uncontested
        and _is_whole(rows := found[placed.document.id], placed.sequence)
        and rows[0].fingerprint == fingerprint(placed.document, options, encoder)
    }


def _is_whole(rows: Sequence[Stored], sequence: int) -> bool:
    """All chunks of one text that says what it was made from, older than this number."""
    if not rows or not rows[0].fingerprint or rows[0].sequence >= sequence:
        return False
    first = rows[0].chunks, rows[0].sequence, rows[0].fingerprint
    return len(rows) == rows[0].chunks and all(
        (row.chunks, row.sequence, row.fingerprint) == first for row in rows
    )
