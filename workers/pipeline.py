"""From documents to points in the store: count, cut, plan, encode, check, upsert.

The child's resources (`workers.process`) run it. It knows neither HTTP nor Celery nor torch nor
Redis: an encoder and a store stand behind protocols. One bad document never hurts its neighbours:
whatever fails together is tried again alone.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from tasks.errors import (
    EmbedError,
    EncoderBroken,
    ModelError,
    ModelMismatch,
    StoreRejected,
    TextTooLong,
)
from tasks.messages import ModelCard, OnLong, Options, Outcome, PlacedDocument, point_id
from workers.encoder import Encoder
from workers.plan import plan

UPSERT_POINTS = 256
"""Points of one call at most; Qdrant advises 64 to 256, and 256 of 384 floats are 2 MB of JSON."""
PROBE = "A short sentence that every model can read."

T = TypeVar("T")
R = TypeVar("R")
Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Point:
    """A vector with its id (a UUID) and payload."""

    id: str
    vector: Vector
    payload: dict[str, Any]


class VectorStore(Protocol):
    """Where points go."""

    def ensure_collection(self, name: str, card: ModelCard) -> None:
        """Make the collection if it is absent. Raises ModelMismatch, StoreDown, StoreRejected."""
        ...

    def upsert(self, collection: str, points: Sequence[Point]) -> None:
        """Returns when the points are stored. Raises StoreDown, StoreRejected, ModelMismatch."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Cut:
    """A text as the model will read it, with the tokens of each chunk."""

    chunks: list[str]
    lengths: list[int]
    truncated: bool = False


def run(
    documents: Sequence[PlacedDocument],
    options: Options,
    encoder: Encoder,
    store: VectorStore,
    budget_tokens: int,
) -> list[Outcome]:
    """One outcome a document, in the documents' order.

    Of documents with the same id the one with the highest sequence is stored. An older one counts
    as done with it, and is embedded itself only if the newer one fails. Raises StoreDown and
    EncoderBroken, for which no document is to blame: the caller gives them all back.
    """
    outcomes: dict[int, Outcome] = {}
    stored: set[str] = set()
    waiting = list(range(len(documents)))
    while waiting:
        batch = _newest(documents, waiting)
        settled = _embed([documents[at] for at in batch], options, encoder, store, budget_tokens)
        outcomes.update(zip(batch, settled, strict=True))
        stored.update(outcome.id for outcome in settled if outcome.state == "done")
        for at in waiting:
            if at not in outcomes and documents[at].document.id in stored:
                outcomes[at] = Outcome(documents[at].index, documents[at].document.id, "done")
        waiting = [at for at in waiting if at not in outcomes]
    return [outcomes[at] for at in range(len(documents))]


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
) -> list[Outcome]:
    cuts = _cut([placed.document.text for placed in documents], options.on_long, encoder)
    encoded = _encode(cuts, encoder, budget_tokens)
    points: list[list[Point] | EmbedError] = [
        _points(placed, cut, vectors, options.collection, encoder.card.name)
        for placed, cut, vectors in zip(documents, cuts, encoded, strict=True)
    ]
    refused = _store(points, options.collection, store)
    return [
        _outcome(placed, cut, refused.get(at))
        for at, (placed, cut) in enumerate(zip(documents, cuts, strict=True))
    ]


def _outcome(placed: PlacedDocument, cut: Cut | EmbedError, error: EmbedError | None) -> Outcome:
    if error is not None:
        return fail(placed, error)
    if isinstance(cut, EmbedError):
        return fail(placed, cut)
    return Outcome(
        placed.index,
        placed.document.id,
        "done",
        points=len(cut.chunks),
        truncated=cut.truncated,
    )


def _cut(texts: Sequence[str], on_long: OnLong, encoder: Encoder) -> list[Cut | EmbedError]:
    counted = _together_or_alone(encoder.count_tokens, texts, Exception)
    return [
        tokens if isinstance(tokens, EmbedError) else _cut_one(text, tokens, on_long, encoder)
        for text, tokens in zip(texts, counted, strict=True)
    ]


def _cut_one(text: str, tokens: int, on_long: OnLong, encoder: Encoder) -> Cut | EmbedError:
    limit = encoder.card.max_tokens
    if tokens <= limit:
        return Cut([text], [tokens])
    if on_long is OnLong.TRUNCATE:
        return Cut([text], [limit], truncated=True)
    if on_long is OnLong.ERROR:
        return TextTooLong(f"the text has {tokens} tokens; the model reads at most {limit}")
    return _together_or_alone(
        lambda alone: [_chunk(long, encoder) for long in alone], [text], Exception
    )[0]


def _chunk(text: str, encoder: Encoder) -> Cut:
    chunks = encoder.split(text)
    return Cut(chunks, encoder.count_tokens(chunks))


def _encode(
    cuts: Sequence[Cut | EmbedError], encoder: Encoder, budget_tokens: int
) -> list[list[Vector] | EmbedError]:
    """The vectors of each cut's chunks, or what kept one of them from being made."""
    texts = [chunk for cut in cuts if isinstance(cut, Cut) for chunk in cut.chunks]
    lengths = [tokens for cut in cuts if isinstance(cut, Cut) for tokens in cut.lengths]
    found: dict[int, Vector | EmbedError] = {}
    for batch in plan(lengths, budget_tokens):
        vectors = _encode_batch([texts[at] for at in batch], encoder)
        found.update(zip(batch, vectors, strict=True))
    in_order = iter([found[at] for at in range(len(texts))])
    return [cut if isinstance(cut, EmbedError) else _gather(cut, in_order) for cut in cuts]


def _gather(cut: Cut, vectors: Iterator[Vector | EmbedError]) -> list[Vector] | EmbedError:
    own = [next(vectors) for _ in cut.chunks]
    errors = [vector for vector in own if isinstance(vector, EmbedError)]
    return errors[0] if errors else [v for v in own if not isinstance(v, EmbedError)]


def _encode_batch(texts: Sequence[str], encoder: Encoder) -> list[Vector | EmbedError]:
    def encode(texts: Sequence[str]) -> list[Vector]:
        vectors = encoder.encode(texts)
        expected = (len(texts), encoder.card.dimension)
        if vectors.shape != expected:
            raise ModelError(f"the model made {vectors.shape} floats instead of {expected}")
        return list(vectors)

    vectors = _together_or_alone(encode, texts, Exception)
    if any(isinstance(vector, EmbedError) for vector in vectors):
        _probe(encoder)
    return [vector if isinstance(vector, EmbedError) else _check(vector) for vector in vectors]


def _probe(encoder: Encoder) -> None:
    """Tell a bad text from a broken model (a lost GPU, say), which would fail every document."""
    [answer] = _together_or_alone(lambda texts: list(encoder.encode(texts)), [PROBE], Exception)
    if isinstance(answer, EmbedError):
        raise EncoderBroken(f"the model reads nothing any more: {answer.detail}") from answer


def _check(vector: Vector) -> Vector | EmbedError:
    if np.isfinite(vector).all():
        return vector
    return ModelError("the model made a vector that is not finite", code="vector_invalid")


def _points(
    placed: PlacedDocument,
    cut: Cut | EmbedError,
    vectors: list[Vector] | EmbedError,
    collection: str,
    model: str,
) -> list[Point] | EmbedError:
    if isinstance(cut, EmbedError):
        return cut
    if isinstance(vectors, EmbedError):
        return vectors
    document = placed.document
    shared = {
        "document_id": document.id,
        "chunks": len(vectors),
        "model": model,
        "sequence": placed.sequence,
        "metadata": document.metadata,
    }
    return [
        Point(
            point_id(collection, document.id, number),
            vector,
            {"text": text, "chunk": number, **shared},
        )
        for number, (text, vector) in enumerate(zip(cut.chunks, vectors, strict=True))
    ]


def _store(
    made: Sequence[list[Point] | EmbedError], collection: str, store: VectorStore
) -> dict[int, EmbedError]:
    """What kept a document from the store, by its position."""

    def upsert(positions: Sequence[int]) -> list[None]:
        points = [point for at in positions for point in ready[at]]
        for start in range(0, len(points), UPSERT_POINTS):
            store.upsert(collection, points[start : start + UPSERT_POINTS])
        return [None] * len(positions)

    ready = {at: points for at, points in enumerate(made) if not isinstance(points, EmbedError)}
    refused = {at: error for at, error in enumerate(made) if isinstance(error, EmbedError)}
    for pack in _pack({at: len(points) for at, points in ready.items()}):
        results = _together_or_alone(upsert, pack, (StoreRejected, ModelMismatch))
        refused.update((at, e) for at, e in zip(pack, results, strict=True) if e is not None)
    return refused


def _pack(sizes: dict[int, int]) -> list[list[int]]:
    """Documents that share a call: up to UPSERT_POINTS points, a larger one alone."""
    packs: list[list[int]] = []
    points = 0
    for at, size in sizes.items():
        if packs and points + size <= UPSERT_POINTS:
            packs[-1].append(at)
            points += size
        else:
            packs.append([at])
            points = size
    return packs


def _together_or_alone(
    work: Callable[[Sequence[T]], Sequence[R]],
    items: Sequence[T],
    failures: type[Exception] | tuple[type[Exception], ...],
) -> list[R | EmbedError]:
    """The results of `work`, or, where it fails even for an item alone, the error.

    With `failures=Exception` this is the program's broad `except`: a model and its tokenizer may
    raise anything about a text, and only that text shall fail. What says of itself that it is
    retryable is about the surroundings and passes.
    """
    try:
        return list(work(items))
    except failures as error:
        if isinstance(error, EmbedError) and error.retryable:
            raise
        if len(items) == 1:
            return [_as_ours(error)]
    return [result for item in items for result in _together_or_alone(work, [item], failures)]


def _as_ours(error: Exception) -> EmbedError:
    if isinstance(error, EmbedError):
        return error
    return ModelError(f"the model refused the text: {type(error).__name__}: {error}")
