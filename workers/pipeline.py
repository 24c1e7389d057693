"""From documents to points in the store: compare, count, cut, plan, encode, check, upsert.

The child's resources (`workers.process`) run it. It knows neither HTTP nor Celery nor torch nor
Redis: an encoder and a store stand behind protocols. One bad document never hurts its neighbours:
whatever fails together is tried again alone.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tasks.errors import (
    EmbedError,
    EncoderBroken,
    ModelError,
    StoreRejected,
    TextTooLong,
)
from tasks.messages import OnLong, Options, Outcome, PlacedDocument, point_id
from workers.encoder import Encoder, TokenizedText, encode_texts
from workers.fingerprints import find_unchanged, fingerprint
from workers.isolation import together_or_alone
from workers.plan import Size, plan, plan_upserts
from workers.timings import Timings
from workers.upserts import MAX_POINTS, Point, Upserts, VectorStore

logger = logging.getLogger(__name__)

PROBE = "A short sentence that every model can read."

T = TypeVar("T")
R = TypeVar("R")
Vector = NDArray[np.float32]
Known = dict[str, Vector | EmbedError]
"""What the texts of a pass have become, so that one which stands in it twice is encoded once."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A text as the model will read it: its chunks, tokenized."""

    chunks: list[TokenizedText]
    truncated: bool = False


def run(
    documents: Sequence[PlacedDocument],
    options: Options,
    encoder: Encoder,
    store: VectorStore,
    budget_tokens: int,
    *,
    timings: Timings,
) -> list[Outcome]:
    """One outcome a document, in the documents' order.

    What stands in the store already as it would be written is left alone. Of documents with the
    same id the one with the highest sequence is stored. An older one counts as done with it, and is
    embedded itself only if the newer one fails. What it costs is added to
    `timings`. Raises StoreDown and EncoderBroken, for which no document is to blame: the caller
    gives them all back.
    """
    with timings.stage("store_wait"):
        unchanged = _find_unchanged(documents, options, encoder, store)
    outcomes = {at: _leave(documents[at]) for at in unchanged}
    timings.texts += len(documents) - len(unchanged)
    stored: set[str] = set()
    waiting = [at for at in range(len(documents)) if at not in outcomes]
    while waiting:
        batch = _newest(documents, waiting)
        chosen = [documents[at] for at in batch]
        settled = _embed(chosen, options, encoder, store, budget_tokens, timings=timings)
        outcomes.update(zip(batch, settled, strict=True))
        stored.update(outcome.id for outcome in settled if outcome.state == "done")
        for at in waiting:
            if at not in outcomes and documents[at].document.id in stored:
                outcomes[at] = Outcome(documents[at].index, documents[at].document.id, "done")
        waiting = [at for at in waiting if at not in outcomes]
    return [outcomes[at] for at in range(len(documents))]


def _find_unchanged(
    documents: Sequence[PlacedDocument], options: Options, encoder: Encoder, store: VectorStore
) -> set[int]:
    """Positions of those that stand in the store as they would be written."""
    asked = {placed.document.id for placed in documents if placed.uncontested}
    if not asked:
        return set()
    try:
        stored = store.read(options.collection, asked)
    except StoreRejected as error:
        logger.warning("cannot tell what is unchanged in %s: %s", options.collection, error)
        return set()
    return find_unchanged(documents, options, encoder, stored)


def _leave(placed: PlacedDocument) -> Outcome:
    return Outcome(placed.index, placed.document.id, "done", unchanged=True)


def encode_whole(
    texts: Sequence[TokenizedText], encoder: Encoder, budget_tokens: int
) -> list[Vector | EmbedError]:
    """The vector of each text, or what kept it from being made. Raises EncoderBroken."""
    whole = {at: Cut([text]) for at, text in enumerate(texts)}
    made = _encode(whole, encoder, budget_tokens, {}, Timings())
    found = (made[at] for at in range(len(texts)))
    return [one if isinstance(one, EmbedError) else one[0] for one in found]


def fail(placed: PlacedDocument, error: EmbedError) -> Outcome:
    """How a document ends that this error befell."""
    document_id = placed.document.id
    return Outcome(placed.index, document_id, "failed", code=error.code, detail=error.detail)


def _newest(documents: Sequence[PlacedDocument], positions: Sequence[int]) -> list[int]:
    """The positions without those of older documents of the same id."""
    by_sequence = sorted(positions, key=lambda at: documents[at].sequence)
    return sorted({documents[at].document.id: at for at in by_sequence}.values())


def _embed(
    documents: Sequence[PlacedDocument],
    options: Options,
    encoder: Encoder,
    store: VectorStore,
    budget_tokens: int,
    *,
    timings: Timings,
) -> list[Outcome]:
    with timings.stage("tokenize"):
        cuts = _cut([placed.document.text for placed in documents], options.on_long, encoder)
    refused = {at: cut for at, cut in enumerate(cuts) if isinstance(cut, EmbedError)}
    readable = {at: cut for at, cut in enumerate(cuts) if isinstance(cut, Cut)}
    groups = _group(readable, encoder.card.max_tokens, budget_tokens)
    known: Known = {}
    with Upserts(store, options.collection, timings, overlap=len(groups) > 1) as upserts:
        for group in groups:
            with timings.stage("encode"):
                chosen = {at: readable[at] for at in group}
                made = _encode(chosen, encoder, budget_tokens, known, timings)
            refused |= {at: found for at, found in made.items() if isinstance(found, EmbedError)}
            points = {
                at: _points(documents[at], readable[at], vectors, options, encoder)
                for at, vectors in made.items()
                if not isinstance(vectors, EmbedError)
            }
            upserts.write(points)
    refused |= upserts.refused
    return [_outcome(placed, cuts[at], refused.get(at)) for at, placed in enumerate(documents)]


def _group(cuts: Mapping[int, Cut], max_tokens: int, budget_tokens: int) -> list[list[int]]:
    """Documents that are stored by one call, and encoded while the call before is under way."""
    sizes = [Size.of([min(len(c), max_tokens) for c in cut.chunks]) for cut in cuts.values()]
    positions = list(cuts)
    return [
        [positions[n] for n in group] for group in plan_upserts(sizes, budget_tokens, MAX_POINTS)
    ]


def _outcome(placed: PlacedDocument, cut: Cut | EmbedError, error: EmbedError | None) -> Outcome:
    if error is not None:
        return fail(placed, error)
    assert isinstance(cut, Cut)
    return Outcome(
        placed.index,
        placed.document.id,
        "done",
        points=len(cut.chunks),
        truncated=cut.truncated,
    )


def _cut(texts: Sequence[str], on_long: OnLong, encoder: Encoder) -> list[Cut | EmbedError]:
    return [
        read if isinstance(read, EmbedError) else _cut_one(read, on_long, encoder)
        for read in together_or_alone(encoder.tokenize, texts, Exception)
    ]


def _cut_one(read: TokenizedText, on_long: OnLong, encoder: Encoder) -> Cut | EmbedError:
    limit = encoder.card.max_tokens
    if len(read) <= limit:
        return Cut([read])
    if on_long is OnLong.TRUNCATE:
        return Cut([read], truncated=True)
    if on_long is OnLong.ERROR:
        return TextTooLong(f"the text has {len(read)} tokens; the model reads at most {limit}")
    return together_or_alone(
        lambda alone: [Cut(encoder.tokenize(encoder.split(long))) for long in alone],
        [read.text],
        Exception,
    )[0]


def _encode(
    cuts: Mapping[int, Cut], encoder: Encoder, budget_tokens: int, known: Known, timings: Timings
) -> dict[int, list[Vector] | EmbedError]:
    """The vectors of each cut's chunks, or what kept one of them from being made.

    What is in `known` is not encoded again, and what is encoded is added to it.
    """
    chunks = [chunk for cut in cuts.values() for chunk in cut.chunks]
    texts = list({chunk.text: chunk for chunk in chunks if chunk.text not in known}.values())
    for batch in plan([min(len(text), encoder.card.max_tokens) for text in texts], budget_tokens):
        chosen = [texts[at] for at in batch]
        vectors = _encode_batch(chosen, encoder, timings)
        known.update(zip((text.text for text in chosen), vectors, strict=True))
    return {at: _gather(cut, known) for at, cut in cuts.items()}


def _gather(cut: Cut, known: Known) -> list[Vector] | EmbedError:
    own = [known[chunk.text] for chunk in cut.chunks]
    errors = [vector for vector in own if isinstance(vector, EmbedError)]
    return errors[0] if errors else [v for v in own if not isinstance(v, EmbedError)]


def _encode_batch(
    texts: Sequence[TokenizedText], encoder: Encoder, timings: Timings
) -> list[Vector | EmbedError]:
    def encode(texts: Sequence[TokenizedText]) -> list[Vector]:
        timings.count_model_call([min(len(text), encoder.card.max_tokens) for text in texts])
        vectors = encoder.encode(texts)
        expected = (len(texts), encoder.card.dimension)
        if vectors.shape != expected:
            raise ModelError(f"the model made {vectors.shape} floats instead of {expected}")
        return list(vectors)

    vectors = together_or_alone(encode, texts, Exception)
    if any(isinstance(vector, EmbedError) for vector in vectors):
        _probe(encoder)
    return [vector if isinstance(vector, EmbedError) else _check(vector) for vector in vectors]


def _probe(encoder: Encoder) -> None:
    """Tell a bad text from a broken model (a lost GPU, say), which would fail every document."""
    [answer] = together_or_alone(
        lambda texts: list(encode_texts(encoder, texts)), [PROBE], Exception
    )
    if isinstance(answer, EmbedError):
        raise EncoderBroken(f"the model reads nothing any more: {answer.detail}") from answer


def _check(vector: Vector) -> Vector | EmbedError:
    if np.isfinite(vector).all():
        return vector
    return ModelError("the model made a vector that is not finite", code="vector_invalid")


def _points(
    placed: PlacedDocument,
    cut: Cut,
    vectors: Sequence[Vector],
    options: Options,
    encoder: Encoder,
) -> list[Point]:
    document = placed.document
    shared = {
        "document_id": document.id,
        "chunks": len(vectors),
        "model": encoder.card.name,
        "sequence": placed.sequence,
        "metadata": document.metadata,
        "fingerprint": fingerprint(document, options, encoder),
    }
    return [
        Point(
            point_id(options.collection, document.id, number),
            vector,
            {"text": chunk.text, "chunk": number, **shared},
        )
        for number, (chunk, vector) in enumerate(zip(cut.chunks, vectors, strict=True))
    ]
