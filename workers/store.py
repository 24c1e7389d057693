"""The vector store: Qdrant over REST. Made in a process that embeds, after any fork.

Only here are errors of qdrant_client and httpx known; above this seam there are StoreDown,
StoreRejected and ModelMismatch.
"""

import logging
import math
import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray
from qdrant_client import models
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import (
    ApiException,
    ResponseHandlingException,
    UnexpectedResponse,
)

from tasks.errors import CollectionNotFound, ModelMismatch, StoreDown, StoreError, StoreRejected
from tasks.messages import ModelCard
from tasks.queries import Search
from tasks.urls import redact
from workers import waiting
from workers.provenance import describe_mismatch, read_provenance, write_provenance
from workers.qdrant import read_address
from workers.upserts import Point, Stored
from workers.versions import Leftover, judge, lowest_sequence, owners

logger = logging.getLogger(__name__)

T = TypeVar("T")

REQUEST_TIMEOUT_S = 10
"""A batch of 256 points takes some 50 ms; a server that needs 10 s is stuck, not slow."""
BACKOFF_S = 0.1
BACKOFF_MAX_S = 5.0
POLL_S = 0.5
SCROLL_POINTS = 1024
DELETED_DOCUMENTS = 64
"""Of one call; each is a condition of its own."""
STORED_FIELDS = ["document_id", "sequence", "chunks", "fingerprint"]

# Not the documents' fault: they wait until somebody has mended the server, the way to it, or the
# credentials. 501 is a plain refusal.
_AWAY = frozenset({401, 403, 407, 408, 425, 429, *range(500, 600)} - {501})

CollectionSeen = Callable[[str, str, int], None]
"""Called with a collection's name, the model that made it, and its dimension."""


class QdrantStore:
    """A client of one Qdrant server; waits `wait_s` seconds for a server that is away, or until
    `gives_up` says so."""

    def __init__(
        self,
        url: str,
        *,
        wait_s: float,
        on_collection: CollectionSeen,
        gives_up: Callable[[], bool] = lambda: False,
    ) -> None:
        self._url = redact(url)
        self._wait_s = wait_s
        self._on_collection = on_collection
        self._gives_up = gives_up
        self._cards: dict[str, ModelCard] = {}
        self._seen: dict[str, ModelCard] = {}
        timeout_s = max(1, math.ceil(min(REQUEST_TIMEOUT_S, wait_s)))
        self._client = read_address(url).connect(timeout_s)

    def ensure_collection(self, name: str, card: ModelCard) -> None:
        """Make the collection, or check that this model made it; once a process.

        Raises ModelMismatch, StoreDown, StoreRejected.
        """
        if self._cards.get(name) != card:
            self._retry(lambda: self._prepare(name, card))

    def upsert(self, collection: str, points: Sequence[Point]) -> None:
        """Write the points and wait until they can be found, unless newer ones are there.

        Points of a document's earlier texts go. Raises StoreDown, StoreRejected.
        """
        self._retry(lambda: self._write(collection, points))

    def read(self, collection: str, document_ids: Collection[str]) -> list[Stored]:
        """See `workers.upserts.VectorStore`."""
        return self._retry(lambda: self._read(collection, document_ids))

    def delete(self, collection: str, numbers: Mapping[str, int]) -> None:
        """See `workers.upserts.VectorStore`."""
        self._retry(lambda: self._delete(collection, list(numbers.items())))

    def search(
        self, search: Search, vector: NDArray[np.float32], card: ModelCard
    ) -> list[dict[str, Any]]:
        """See `workers.upserts.SearchIndex`."""
        try:
            if card not in (self._cards.get(search.collection), self._seen.get(search.collection)):
                self._admit(search.collection, card)
            return self._query(search, vector)
        except UnexpectedResponse as error:
            if error.status_code == 404:
                self._seen.pop(search.collection, None)
                raise _not_found(search.collection) from error
            raise self._translate(error) from error
        except (ApiException, QdrantException) as error:
            raise self._translate(error) from error

    def close(self) -> None:
        self._client.close()

    def _admit(self, collection: str, card: ModelCard) -> None:
        """Let searches with this card's vectors pass; once a process."""
        info = self._find(collection)
        if info is None:
            raise _not_found(collection)
        self._check(collection, info, card)
        self._seen[collection] = card

    def _query(self, search: Search, vector: NDArray[np.float32]) -> list[dict[str, Any]]:
        # not through the client's models: the filter is the user's, for the server to judge
        body = {
            "query": vector,
            "limit": search.limit,
            "with_payload": True,
            **({} if search.filter is None else {"filter": search.filter}),
        }
        reply = self._client.http.client.request(
            type_=models.InlineResponse20022,
            method="POST",
            url="/collections/{collection_name}/points/query",
            path_params={"collection_name": search.collection},
            headers={"Content-Type": "application/json"},
            content=orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY),
        )
        points = reply.result.points if reply.result else []
        return [{"id": str(p.id), "score": p.score, "payload": p.payload or {}} for p in points]

    def _write(self, collection: str, points: Sequence[Point]) -> None:
        self._put(collection, points)
        verdict = judge(points, self._find_stored(collection, owners(points)))
        for refused in verdict.refused:
            self._put(collection, refused)
        for leftover in verdict.leftovers:
            self._client.delete(collection, points_selector=_older(leftover), wait=True)

    def _read(self, collection: str, document_ids: Collection[str]) -> list[Stored]:
        try:
            return list(self._find_stored(collection, document_ids))
        except UnexpectedResponse as error:
            if error.status_code == 404:  # the collection has gone, and its points with it
                return []
            raise

    def _delete(self, collection: str, numbers: Sequence[tuple[str, int]]) -> None:
        try:
            for start in range(0, len(numbers), DELETED_DOCUMENTS):
                part = [_owned_before(*row) for row in numbers[start : start + DELETED_DOCUMENTS]]
                chosen = models.FilterSelector(filter=models.Filter(should=part))
                self._client.delete(collection, points_selector=chosen, wait=True)
        except UnexpectedResponse as error:
            if error.status_code != 404:  # without a collection there is nothing to delete
                raise

    def _find_stored(self, collection: str, document_ids: Collection[str]) -> Iterator[Stored]:
        """All points of these documents."""
        match = models.MatchAny(any=sorted(document_ids))
        owned = models.FieldCondition(key="document_id", match=match)
        offset: Any = None
        while True:
            records, offset = self._client.scroll(
                collection,
                scroll_filter=models.Filter(must=[owned]),
                with_payload=STORED_FIELDS,
                limit=SCROLL_POINTS,
                offset=offset,
            )
            for record in records:
                yield _stored(record)
            if offset is None:
                return

    def _put(self, collection: str, points: Sequence[Point]) -> None:
        body = _encode_points(points)
        try:
            self._put_points(collection, body)
        except UnexpectedResponse as error:
            card = self._cards.get(collection)
            if error.status_code != 404 or card is None:
                raise
            logger.warning("collection %s has gone; making it again", collection)
            self._prepare(collection, card)
            self._put_points(collection, body)

    def _put_points(self, collection: str, body: bytes) -> None:
        # Through the client's connection, but not its models: building and encoding 256 points as
        # pydantic models takes 18 ms, orjson 4 ms.
        self._client.http.client.request(
            type_=models.InlineResponse2008,
            method="PUT",
            url="/collections/{collection_name}/points",
            path_params={"collection_name": collection},
            params={"wait": "true"},
            headers={"Content-Type": "application/json"},
            content=body,
        )

    def _prepare(self, name: str, card: ModelCard) -> None:
        info = self._find(name)
        if info is None:
            self._create(name, card)
            info = self._find(name)
        if info is None:
            raise StoreDown(f"collection {name} was deleted while it was made")
        self._check(name, info, card)
        if "document_id" not in (info.payload_schema or {}):
            self._client.create_payload_index(
                name, "document_id", field_schema=models.PayloadSchemaType.KEYWORD, wait=True
            )
        self._cards[name] = card
        self._on_collection(name, card.name, card.dimension)

    def _find(self, name: str) -> models.CollectionInfo | None:
        try:
            return self._client.get_collection(name)
        except UnexpectedResponse as error:
            if error.status_code == 404:
                return None
            raise

    def _create(self, name: str, card: ModelCard) -> None:
        try:
            self._client.create_collection(
                name,
                vectors_config=models.VectorParams(
                    size=card.dimension, distance=models.Distance.COSINE
                ),
                metadata=write_provenance(card),
            )
        except UnexpectedResponse as error:
            if error.status_code != 409:  # another child was faster
                raise

    def _check(self, name: str, info: models.CollectionInfo, card: ModelCard) -> None:
        vectors = info.config.params.vectors
        if not isinstance(vectors, models.VectorParams):
            raise ModelMismatch(f"collection {name} has named vectors; choose another collection")
        made_by = read_provenance(info.config.metadata, vectors.size)
        sentence = describe_mismatch(name, made_by, card.name, card.dimension)
        if sentence:
            self._on_collection(name, made_by.model or "", made_by.dimension)
            raise ModelMismatch(sentence)

    def _retry(self, action: Callable[[], T]) -> T:
        try:
            return self._try_for_long(action)
        finally:
            waiting.end_waiting()

    def _try_for_long(self, action: Callable[[], T]) -> T:
        began, attempt = time.monotonic(), 0
        while True:
            try:
                return action()
            except (ApiException, QdrantException) as error:
                ours = self._translate(error)
                left_s = began + self._wait_s - time.monotonic()
                if isinstance(ours, StoreRejected) or left_s <= 0:
                    raise ours from error
                waiting.begin_waiting(began)
                if attempt == 0:
                    logger.warning("%s; trying again", ours)
                pause_s = max(_retry_after_s(error), _backoff_s(attempt))
                attempt += 1
                # a server that wants longer gets what there is: work that is given back sooner
                # would be fetched again at once
                if self._pause(min(pause_s, left_s)) or pause_s > left_s:
                    raise ours from error

    def _pause(self, pause_s: float) -> bool:
        """Sleep; whether that ended early because there is no time to wait any more."""
        until = time.monotonic() + pause_s
        while not self._gives_up():
            left_s = until - time.monotonic()
            if left_s <= 0:
                return False
            time.sleep(min(left_s, POLL_S))
        return True

    def _translate(self, error: Exception) -> StoreError:
        if not isinstance(error, UnexpectedResponse) or error.status_code in _AWAY:
            return StoreDown(f"Qdrant at {self._url} does not answer: {_reason(error)}")
        return StoreRejected(f"Qdrant refused it ({error.status_code}): {_reason(error)}")


def _stored(record: models.Record) -> Stored:
    payload = record.payload or {}
    return Stored(
        str(record.id),
        payload["document_id"],
        payload.get("sequence", 0),
        payload.get("chunks", 0),
        payload.get("fingerprint", ""),
    )


def _not_found(collection: str) -> CollectionNotFound:
    return CollectionNotFound(f"there is no collection {collection}")


def _owned_before(document_id: str, number: int) -> models.Filter:
    """Points of a document that are not of this acceptance number or a later one; a point without
    a number is of a time before there were any."""
    owned = models.FieldCondition(key="document_id", match=models.MatchValue(value=document_id))
    later = models.FieldCondition(key="sequence", range=models.Range(gte=number))
    return models.Filter(must=[owned], must_not=[later])


def _older(leftover: Leftover) -> models.FilterSelector:
    owner = models.MatchValue(value=leftover.document_id)
    conditions: list[models.Condition] = [
        models.FieldCondition(key="document_id", match=owner),
        models.FieldCondition(key="sequence", range=models.Range(lt=leftover.sequence)),
    ]
    return models.FilterSelector(filter=models.Filter(must=conditions))


def _encode_points(points: Sequence[Point]) -> bytes:
    """An upsert that leaves alone what is not older than all of these points."""
    older = {"key": "sequence", "range": {"lt": lowest_sequence(points)}}
    rows = [{"id": p.id, "vector": p.vector, "payload": p.payload} for p in points]
    try:
        return orjson.dumps(
            {"points": rows, "update_filter": {"must": [older]}}, option=orjson.OPT_SERIALIZE_NUMPY
        )
    except TypeError as error:  # lone surrogates, integers beyond 64 bits
        raise StoreRejected(f"a document cannot be written as JSON: {error}") from error


def _backoff_s(attempt: int) -> float:
    """Exponential with full jitter, so that children do not come back together."""
    ceiling_s: float = min(BACKOFF_MAX_S, BACKOFF_S * 2 ** min(attempt, 16))
    return random.uniform(ceiling_s / 2, ceiling_s)


def _retry_after_s(error: Exception) -> float:
    if isinstance(error, ResourceExhaustedResponse):
        return float(error.retry_after_s)
    if isinstance(error, UnexpectedResponse):
        value = error.headers.get("Retry-After", "")
        return float(value) if value.isdigit() else 0.0
    return 0.0


def _reason(error: Exception) -> str:
    if isinstance(error, ResponseHandlingException):
        return f"{type(error.source).__name__}: {error.source}".splitlines()[0]
    if isinstance(error, UnexpectedResponse):
        return _server_reason(error)
    return str(error)


def _server_reason(error: UnexpectedResponse) -> str:
    try:
        answer: Any = orjson.loads(error.content)
        return str(answer["status"]["error"])
    except (ValueError, KeyError, TypeError):
        return f"{error.status_code} {error.reason_phrase}".strip()
