"""Every request but the upsert: Qdrant's REST models -> requests of the engine.

What comes out of here is complete and valid for the collection, so the engine has nothing left to
refuse. Imported by routes and collection.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import qdrant_edge as engine
from pydantic import TypeAdapter
from qdrant_client.http import models

from compose.qdrant.bodies import parse_body, refuse_other_fields
from compose.qdrant.errors import MalformedError, UnsupportedError
from compose.qdrant.filters import build_filter, check_path
from compose.qdrant.identifiers import PointId, parse_point_id
from compose.qdrant.points import check_vector

MAX_DIMENSION = 65_536  # as in Qdrant
MAX_LIMIT = 1_000_000  # results a request may ask for; they are all built in memory
DEFAULT_LIMIT = 10  # as in Qdrant

CREATE_COLLECTION = TypeAdapter(models.CreateCollection)
CREATE_INDEX = TypeAdapter(models.CreateFieldIndex)
POINTS_SELECTOR: TypeAdapter[models.PointsSelector] = TypeAdapter(models.PointsSelector)
POINT_REQUEST = TypeAdapter(models.PointRequest)
SCROLL_REQUEST = TypeAdapter(models.ScrollRequest)
COUNT_REQUEST = TypeAdapter(models.CountRequest)
QUERY_REQUEST = TypeAdapter(models.QueryRequest)

PayloadChoice = bool | engine.PayloadSelector


@dataclass(frozen=True, slots=True)
class CollectionConfig:
    """What a collection is made with; it never changes."""

    size: int
    distance: models.Distance
    metadata: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Selection:
    """Points by id, with what to return of them."""

    ids: list[PointId]
    with_payload: PayloadChoice
    with_vector: bool


@dataclass(frozen=True, slots=True)
class NearestQuery:
    """The points nearest to a vector, or to the vector of a point, which is then left out."""

    target: list[float] | PointId
    filter: engine.Filter | None
    score_threshold: float | None
    limit: int
    offset: int
    with_payload: PayloadChoice
    with_vector: bool


def parse_collection(body: bytes) -> CollectionConfig:
    request = parse_body(CREATE_COLLECTION, body)
    refuse_other_fields(request, "vectors", "metadata")
    vectors = request.vectors
    if not isinstance(vectors, models.VectorParams):
        raise UnsupportedError("a collection without exactly one unnamed dense vector")
    refuse_other_fields(vectors, "size", "distance")
    if not 1 <= vectors.size <= MAX_DIMENSION:
        raise MalformedError(f"Validation error in vectors: size must be 1 to {MAX_DIMENSION}")
    return CollectionConfig(vectors.size, vectors.distance, request.metadata)


def parse_index(body: bytes) -> str:
    """The path of the field to index; only keyword indexes without parameters are built."""
    request = parse_body(CREATE_INDEX, body)
    schema = request.field_schema
    if isinstance(schema, models.KeywordIndexParams):
        refuse_other_fields(schema, "type")
    elif schema != models.PayloadSchemaType.KEYWORD:
        raise UnsupportedError(f"a payload index other than keyword on `{request.field_name}`")
    return check_path(request.field_name)


def parse_deletion(body: bytes) -> engine.UpdateOperation:
    """
    Raises:
        MalformedError: also for an empty list of ids, as in Qdrant.
    """
    request = parse_body(POINTS_SELECTOR, body)
    if isinstance(request, models.FilterSelector):
        refuse_other_fields(request, "filter")
        return engine.UpdateOperation.delete_points_by_filter(build_filter(request.filter))
    refuse_other_fields(request, "points")
    if not request.points:
        raise MalformedError("Wrong input: Empty update request")
    return engine.UpdateOperation.delete_points(parse_ids(request.points))


def parse_selection(body: bytes) -> Selection:
    request = parse_body(POINT_REQUEST, body)
    refuse_other_fields(request, "ids", "with_payload", "with_vector")
    return Selection(
        ids=parse_ids(request.ids),
        with_payload=build_payload_choice(request.with_payload, default=True),
        with_vector=check_vector_choice(request.with_vector),
    )


def parse_scroll(body: bytes) -> engine.ScrollRequest:
    request = parse_body(SCROLL_REQUEST, body)
    refuse_other_fields(request, "offset", "limit", "filter", "with_payload", "with_vector")
    return engine.ScrollRequest(
        offset=None if request.offset is None else parse_point_id(request.offset),
        limit=check_limit(request.limit),
        filter=None if request.filter is None else build_filter(request.filter),
        with_payload=build_payload_choice(request.with_payload, default=True),
        with_vector=check_vector_choice(request.with_vector),
    )


def parse_count(body: bytes) -> engine.CountRequest:
    request = parse_body(COUNT_REQUEST, body)
    refuse_other_fields(request, "filter", "exact")
    return engine.CountRequest(
        exact=request.exact is not False,
        filter=None if request.filter is None else build_filter(request.filter),
    )


def parse_query(body: bytes, dimension: int) -> NearestQuery:
    request = parse_body(QUERY_REQUEST, body)
    refuse_other_fields(
        request,
        *("query", "filter", "params", "score_threshold", "limit", "offset"),
        *("with_payload", "with_vector"),
    )
    check_params(request.params)
    return NearestQuery(
        target=parse_target(request.query, dimension),
        filter=None if request.filter is None else build_filter(request.filter),
        score_threshold=request.score_threshold,
        limit=check_limit(request.limit),
        offset=check_offset(request.offset),
        with_payload=build_payload_choice(request.with_payload, default=False),
        with_vector=check_vector_choice(request.with_vector),
    )


def parse_target(query: object, dimension: int) -> list[float] | PointId:
    if isinstance(query, models.NearestQuery):
        refuse_other_fields(query, "nearest")
        query = query.nearest
    if isinstance(query, list):
        return check_vector(query, dimension)
    if isinstance(query, int | UUID | str):
        return parse_point_id(query)
    raise UnsupportedError("a query other than nearest to a dense vector or a point id")


def check_params(params: models.SearchParams | None) -> None:
    """`exact` and `hnsw_ef` change nothing here: every search is exact."""
    if params is None:
        return
    refuse_other_fields(params, "exact", "hnsw_ef", "indexed_only")
    if params.indexed_only:
        raise UnsupportedError("`indexed_only`, there is no vector index")


def check_limit(limit: int | None) -> int:
    if limit is None:
        return DEFAULT_LIMIT
    if not 1 <= limit <= MAX_LIMIT:
        raise MalformedError(f"Validation error in body: limit must be 1 to {MAX_LIMIT}")
    return limit


def check_offset(offset: int | None) -> int:
    if offset is None:
        return 0
    if not 0 <= offset <= MAX_LIMIT:
        raise MalformedError(f"Validation error in body: offset must be 0 to {MAX_LIMIT}")
    return offset


def parse_ids(ids: list[Any]) -> list[PointId]:
    return [parse_point_id(item) for item in ids]


def build_payload_choice(
    choice: models.WithPayloadInterface | None, *, default: bool
) -> PayloadChoice:
    match choice:
        case None:
            return default
        case bool():
            return choice
        case models.PayloadSelectorInclude(include=keys):
            return engine.PayloadSelector.Include([check_path(key) for key in keys])
        case models.PayloadSelectorExclude(exclude=keys):
            return engine.PayloadSelector.Exclude([check_path(key) for key in keys])
        case list():
            return engine.PayloadSelector.Include([check_path(key) for key in choice])
    raise UnsupportedError(f"the payload selector {type(choice).__name__}")


def check_vector_choice(choice: bool | list[str] | None) -> bool:
    if isinstance(choice, list):
        raise UnsupportedError("named vectors in with_vector")
    return bool(choice)
