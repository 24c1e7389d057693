"""What a process that embeds holds: the model and the store, made once, after any fork.

`workers.startup` opens and closes it in pool children, where the model may be the one that their
main process has loaded (`workers.preload`); the task's body calls `embed_documents`,
which opens it itself in pools of threads and where tasks run eagerly.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from threading import Lock

import redis

from tasks.broker import connect
from tasks.errors import ModelMismatch, StoreRejected
from tasks.messages import ModelCard, Options, Outcome, PlacedDocument
from tasks.presence import record_collection
from tasks.settings import Settings, get_settings
from workers.deletion import remove
from workers.draining import is_draining
from workers.encoder import Encoder, build_encoder, encode_texts
from workers.lane import GivingWay
from workers.pipeline import PROBE, fail, run
from workers.timings import Timings
from workers.upserts import SearchIndex, VectorStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Resources:
    """One process' encoder and store, which can be searched, too."""

    encoder: Encoder
    store: VectorStore
    index: SearchIndex
    budget_tokens: int


_slot: Resources | None = None
_filling = Lock()


def open_resources(settings: Settings) -> ModelCard:
    """Load the model, warm it with one call, connect the store. Raises ModelError."""
    return _fill(settings).encoder.card


def close_resources() -> None:
    """Give them back; the next use opens them again."""
    global _slot  # noqa: PLW0603  # the slot is this module's purpose
    with _filling:
        if _slot is not None:
            _slot.store.close()
        _slot = None


def resources() -> Resources:
    """This process' own, opened if they are not."""
    return _slot or _fill(get_settings())


def embed_documents(
    documents: Sequence[PlacedDocument],
    options: Options,
    timings: Timings,
    give_way: Callable[[], float] | None = None,
) -> list[Outcome]:
    """Embed and store documents, or delete them, one outcome each, in their order; `timings` says
    what it cost. Those that a deletion has overtaken are deleted, too. Before each call of the
    model it gives way, if it is told how.

    Raises StoreDown when the store stays away, and EncoderBroken when the model reads nothing any
    more: then the documents are to be given back.
    """
    use = resources()
    if give_way is not None:
        use = replace(use, encoder=GivingWay(use.encoder, give_way, timings))
    goes = [options.delete or placed.overtaken_by > 0 for placed in documents]
    gone = [placed for placed, go in zip(documents, goes, strict=True) if go]
    kept = [placed for placed, go in zip(documents, goes, strict=True) if not go]
    removed = iter(remove(gone, options.collection, use.store) if gone else [])
    embedded = iter(_embed_documents(kept, options, use, timings) if kept else [])
    return [next(removed) if go else next(embedded) for go in goes]


def _embed_documents(
    documents: Sequence[PlacedDocument], options: Options, use: Resources, timings: Timings
) -> list[Outcome]:
    encoder, store = use.encoder, use.store
    try:
        with timings.stage("store_wait"):
            store.ensure_collection(options.collection, encoder.card)
    except (ModelMismatch, StoreRejected) as error:
        return [fail(placed, error) for placed in documents]
    return run(documents, options, encoder, store, use.budget_tokens, timings=timings)


def _fill(settings: Settings) -> Resources:
    global _slot  # noqa: PLW0603
    with _filling:
        if _slot is None:
            _slot = _make(settings)
        return _slot


def _make(settings: Settings) -> Resources:
    from workers.store import QdrantStore

    encoder = build_encoder(settings)
    encode_texts(encoder, [PROBE])  # the first call is slow: threads start, kernels are chosen
    client = connect(settings)

    def record(collection: str, model: str, dimension: int) -> None:
        try:
            record_collection(client, collection, model, dimension)
        except (redis.exceptions.RedisError, OSError) as error:
            logger.warning("could not record the model of collection %s: %s", collection, error)

    store = QdrantStore(
        settings.qdrant_url,
        wait_s=settings.store_wait_s,
        on_collection=record,
        gives_up=is_draining,
    )
    return Resources(encoder, store, store, settings.batch_tokens or encoder.budget_tokens)
