"""The verb `embedmill search`, and searching as the demo does it; only `compose` imports it.

The query is encoded in this process, by the model of the settings; the store's client is loaded
with this module, the model when a `Searcher` is made.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Self

import click
import orjson
from qdrant_client import models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import (
    ApiException,
    ResponseHandlingException,
    UnexpectedResponse,
)

from compose.addresses import find_services
from compose.plain import strip_controls
from tasks.errors import InvalidRequest, ModelMismatch, StoreDown, StoreRejected
from tasks.settings import Settings, get_settings
from tasks.urls import redact
from workers.encoder import build_encoder, encode_texts
from workers.pipeline import PROBE
from workers.provenance import describe_mismatch, read_provenance
from workers.qdrant import read_address
from workers.weights import read_dimension

TIMEOUT_S = 30
SHOWN_CHARACTERS = 240
QUERY_THREADS = 1
"""Unless EMBED_THREADS says otherwise. Two threads that wait for each other beside busy workers
took medians of 124 to 168 ms a query, a single one 13 to 32 (two cores)."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that was found; `score` is the cosine of the angle to the query."""

    score: float
    text: str
    document_id: str
    chunk: int
    chunks: int
    metadata: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Answer:
    """The best first, and the milliseconds that it took."""

    hits: Sequence[Hit]
    encode_ms: float
    search_ms: float
    truncated: bool


class Searcher:
    """A loaded model and a connection to one store: a context, for any number of queries."""

    def __init__(self, settings: Settings, collection: str) -> None:
        """Raises ModelMismatch when another model made the collection, before loading one;
        InvalidRequest when there is none; StoreDown, StoreRejected, ModelError."""
        self._url = settings.qdrant_url
        self._collection = collection
        self._client = read_address(self._url).connect(TIMEOUT_S)
        try:
            self._check(settings.model_name, read_dimension(settings))
            began_s = time.perf_counter()
            self._encoder = build_encoder(for_queries(settings))
            encode_texts(self._encoder, [PROBE])  # the first call is slow, and no query's fault
            self.load_ms = _since_ms(began_s)
            self._check(self._encoder.card.name, self._encoder.card.dimension)
        except BaseException:
            self._client.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def search(self, query: str, limit: int) -> Answer:
        """The nearest chunks. Raises StoreDown, StoreRejected, ModelError."""
        began_s = time.perf_counter()
        (read,) = self._encoder.tokenize_queries([query])
        (vector,) = self._encoder.encode([read])
        encode_ms, began_s = _since_ms(began_s), time.perf_counter()
        with store_errors(self._url):
            found = self._client.query_points(
                self._collection, query=vector.tolist(), limit=limit, with_payload=True
            )
        hits = [_hit(point) for point in found.points]
        truncated = len(read) > self._encoder.card.max_tokens
        return Answer(hits, encode_ms, _since_ms(began_s), truncated)

    def count_points(self) -> int:
        """Of the collection. Raises StoreDown, StoreRejected."""
        with store_errors(self._url):
            return self._client.count(self._collection, exact=True).count

    def _check(self, model: str, dimension: int | None) -> None:
        with store_errors(self._url):
            if not self._client.collection_exists(self._collection):
                raise InvalidRequest(
                    f"there is no collection {self._collection} in {redact(self._url)}"
                )
            config = self._client.get_collection(self._collection).config
        vectors = config.params.vectors
        if not isinstance(vectors, models.VectorParams):
            raise ModelMismatch(f"collection {self._collection} has named vectors: it is not ours")
        made_by = read_provenance(config.metadata, vectors.size)
        if describe_mismatch(self._collection, made_by, model, dimension):
            raise ModelMismatch(
                f"collection {self._collection} was made by {made_by.model or 'a model'} with "
                f"{made_by.dimension} dimensions, which {model} cannot search: set EMBED_MODEL to "
                "the model that made it, or choose another collection"
            )


def for_queries(settings: Settings) -> Settings:
    """The settings of an encoder of single queries."""
    return settings.model_copy(update={"threads": settings.threads or QUERY_THREADS})


def run(query: str, collection: str | None, limit: int, *, as_json: bool) -> None:
    """The verb. Raises as `Searcher` does."""
    settings = find_services(get_settings())
    name = collection or settings.collection
    with Searcher(settings, name) as searcher:
        answer = searcher.search(query, limit)
        load_ms = searcher.load_ms
    if answer.truncated:
        click.echo("Note: the query is longer than the model reads; its end was cut off.", err=True)
    if as_json:
        timings = {"load_ms": load_ms, "encode_ms": answer.encode_ms, "search_ms": answer.search_ms}
        hits = [asdict(hit) for hit in answer.hits]
        fields = {"query": query, "collection": name, "hits": hits, "timings": timings}
        click.echo(orjson.dumps(fields, option=orjson.OPT_INDENT_2).decode())
        return
    click.echo("\n".join(map(describe, answer.hits)) or "Nothing was found.")
    click.echo(f"load {load_ms:,.0f} ms, {describe_timings(answer)}")


def describe(hit: Hit) -> str:
    """A hit in two lines."""
    part = f", chunk {hit.chunk + 1} of {hit.chunks}" if hit.chunks > 1 else ""
    metadata = f"  {orjson.dumps(hit.metadata).decode()}" if hit.metadata else ""
    origin = strip_controls(f"{hit.document_id}{part}{metadata}")
    return f"{hit.score:.3f}  {_shorten(hit.text)}\n       {origin}"


def describe_timings(answer: Answer) -> str:
    return f"encode {answer.encode_ms:.1f} ms, search {answer.search_ms:.1f} ms"


@contextmanager
def store_errors(url: str) -> Iterator[None]:
    """Turn the client's errors into StoreDown and StoreRejected."""
    try:
        yield
    except ResponseHandlingException as error:
        raise StoreDown(f"no Qdrant answers at {redact(url)}: {error.source}") from error
    except UnexpectedResponse as error:
        raise StoreRejected(f"Qdrant at {redact(url)} answers {error.status_code}") from error
    except (ApiException, QdrantException) as error:
        raise StoreDown(f"Qdrant at {redact(url)}: {error}") from error


def _hit(point: models.ScoredPoint) -> Hit:
    payload = point.payload or {}
    return Hit(
        score=point.score,
        text=str(payload.get("text", "")),
        document_id=str(payload.get("document_id", point.id)),
        chunk=int(payload.get("chunk", 0)),
        chunks=int(payload.get("chunks", 1)),
        metadata=payload.get("metadata"),
    )


def _shorten(text: str) -> str:
    line = strip_controls(" ".join(text.split()))
    return line if len(line) <= SHOWN_CHARACTERS else f"{line[: SHOWN_CHARACTERS - 1]}…"


def _since_ms(began_s: float) -> float:
    return round((time.perf_counter() - began_s) * 1000, 3)
