"""Points to be written: the one hot path of the server.

A request of 256 points carries 100,000 floats, so this reads plain parsed JSON and leaves Qdrant's
pydantic models to smaller requests. Imported by routes.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson
import qdrant_edge as engine
from pydantic import TypeAdapter
from qdrant_client.http import models

from compose.qdrant.bodies import check_nesting, parse_body, parse_json
from compose.qdrant.errors import MalformedError, UnsupportedError
from compose.qdrant.filters import build_filter
from compose.qdrant.identifiers import parse_point_id

UPSERT_FIELDS = {"points", "batch", "update_filter", "update_mode", "shard_key"}
BATCH_FIELDS = {"ids", "vectors", "payloads"}
POINT_FIELDS = {"id", "vector", "payload"}
NUMBERS = {int, float}
# Two vectors up to this length keep every dot product and squared distance within float32, so no
# score is ever infinite: (2 * 9e18)^2 < 3.4e38.
MAX_LENGTH = 9e18

FILTER = TypeAdapter(models.Filter)
UPDATE_MODES = {
    "upsert": engine.UpdateMode.Upsert,
    "insert_only": engine.UpdateMode.InsertOnly,
    "update_only": engine.UpdateMode.UpdateOnly,
}


@dataclass(frozen=True, slots=True)
class Upsert:
    """Points that are valid for their collection, and the conditions of writing them."""

    points: list[engine.Point]
    update_filter: engine.Filter | None
    update_mode: engine.UpdateMode | None


def parse_upsert(body: bytes, dimension: int) -> Upsert:
    """Read `PUT /collections/{c}/points`, as a list of points or as a batch of columns.

    Raises:
        MalformedError: anything wrong with any point; nothing of the request is written then.
        UnsupportedError: named, sparse or multi-vectors, shard keys.
    """
    fields = take_object(parse_json(body), UPSERT_FIELDS, "the body")
    if fields.get("shard_key") is not None:
        raise UnsupportedError("`shard_key`")
    points = build_points(list_points(fields), dimension)
    if not points:
        raise MalformedError("Wrong input: Empty update request")
    return Upsert(points, parse_update_filter(fields), parse_update_mode(fields))


def parse_update_filter(fields: dict[str, Any]) -> engine.Filter | None:
    body = fields.get("update_filter")
    return None if body is None else build_filter(parse_body(FILTER, orjson.dumps(body)))


def parse_update_mode(fields: dict[str, Any]) -> engine.UpdateMode | None:
    mode = fields.get("update_mode")
    if mode is None:
        return None
    if not isinstance(mode, str) or mode not in UPDATE_MODES:
        raise MalformedError(
            f"Format error in JSON body: update_mode must be one of {', '.join(UPDATE_MODES)}"
        )
    return UPDATE_MODES[mode]


def list_points(fields: dict[str, Any]) -> list[Any]:
    if ("points" in fields) == ("batch" in fields):
        raise MalformedError("Format error in JSON body: needs either `points` or `batch`")
    if "batch" in fields:
        return list(zip_batch(fields["batch"]))
    return take_list(fields["points"], "points")


def zip_batch(body: object) -> Iterable[dict[str, Any]]:
    columns = take_object(body, BATCH_FIELDS, "batch")
    if isinstance(columns.get("vectors"), dict):
        raise UnsupportedError("named vectors")
    ids = take_list(columns.get("ids"), "batch.ids")
    vectors = take_list(columns.get("vectors"), "batch.vectors")
    payloads = columns.get("payloads")
    payloads = [None] * len(ids) if payloads is None else take_list(payloads, "batch.payloads")
    if not len(ids) == len(vectors) == len(payloads):
        raise MalformedError(
            "Validation error: batch needs as many vectors and payloads as it has ids"
        )
    for point_id, vector, payload in zip(ids, vectors, payloads, strict=True):
        yield {"id": point_id, "vector": vector, "payload": payload}


def build_points(bodies: list[Any], dimension: int) -> list[engine.Point]:
    points = []
    for index, body in enumerate(bodies):
        try:
            points.append(build_point(body, dimension))
        except MalformedError as error:
            raise MalformedError(f"{error} (points[{index}])") from error
    return points


def build_point(body: object, dimension: int) -> engine.Point:
    """One point; an id that is missing or `null` is refused like any other bad id."""
    fields = take_object(body, POINT_FIELDS, "a point")
    return engine.Point(
        id=parse_point_id(fields.get("id")),
        vector=check_vector(fields.get("vector"), dimension),
        payload=check_payload(fields.get("payload")),
    )


def check_vector(vector: object, dimension: int) -> list[float]:
    """A dense vector of `dimension` finite numbers that float32 holds.

    Raises:
        MalformedError: another size, something that is no number, or too long for float32.
        UnsupportedError: a named, sparse or multi-vector, or a text to be embedded.
    """
    if type(vector) is dict:
        raise UnsupportedError("named or sparse vectors, server-side inference")
    if type(vector) is not list:
        raise MalformedError("Format error in JSON body: vector must be a list of numbers")
    if len(vector) != dimension:
        raise MalformedError(
            f"Wrong input: Vector dimension error: expected dim: {dimension}, got {len(vector)}"
        )
    kinds = set(map(type, vector))
    if list in kinds:
        raise UnsupportedError("multi-vectors")
    if not kinds <= NUMBERS:
        raise MalformedError("Format error in JSON body: vector must be a list of numbers")
    if not measure_length(vector) <= MAX_LENGTH:  # NaN is not <= anything
        raise MalformedError(f"Wrong input: vector is not finite or longer than {MAX_LENGTH:g}")
    return vector


def measure_length(vector: list[float]) -> float:
    """Euclidean length; infinite when a number is beyond float64, NaN when one is NaN."""
    try:
        return math.hypot(*vector)
    except OverflowError:
        return math.inf


def check_payload(payload: object) -> dict[str, Any] | None:
    if payload is None:
        return None
    if type(payload) is not dict:
        raise MalformedError("Format error in JSON body: payload must be an object")
    check_nesting(payload)
    return payload


def take_object(body: object, known: set[str], name: str) -> dict[str, Any]:
    if type(body) is not dict:
        raise MalformedError(f"Format error in JSON body: {name} must be an object")
    if unknown := body.keys() - known:
        raise MalformedError(
            f"Format error in JSON body: unknown field {sorted(unknown)[0]!r} in {name}"
        )
    return body


def take_list(body: object, name: str) -> list[Any]:
    if type(body) is not list:
        raise MalformedError(f"Format error in JSON body: {name} must be a list")
    return body
