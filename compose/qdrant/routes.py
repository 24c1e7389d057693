"""HTTP: which path does what, and how results and refusals look.

Imported by server.
"""

import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from compose.qdrant.collection import Collection
from compose.qdrant.errors import (
    MalformedError,
    NotFoundError,
    RefusalError,
    TooLargeError,
    UnsupportedError,
)
from compose.qdrant.identifiers import parse_point_id
from compose.qdrant.points import parse_upsert
from compose.qdrant.requests import (
    Selection,
    parse_collection,
    parse_count,
    parse_deletion,
    parse_index,
    parse_query,
    parse_scroll,
    parse_selection,
)
from compose.qdrant.storage import Storage

# Clients warn when a server's version is more than one minor from their own.
QDRANT_VERSION = "1.20.0"
TITLE = "qdrant - vector search engine (local server)"
MAX_BODY_BYTES = 32 * 1024 * 1024  # Qdrant's default
METHODS = ["GET", "PUT", "POST", "PATCH", "DELETE"]

# One process applies every operation before it answers, so all of these are kept to by themselves.
QUERY_PARAMETERS = {
    "wait": re.compile("true|false"),
    "ordering": re.compile("weak|medium|strong"),
    "timeout": re.compile(r"[0-9]+"),
    "consistency": re.compile(r"[0-9]+|majority|quorum|all"),
}
INTEGER_ID = re.compile(r"[0-9]{1,20}")


@dataclass(frozen=True, slots=True)
class Call:
    """One request, read completely."""

    storage: Storage
    path: Mapping[str, str]
    flags: Mapping[str, str]
    body: bytes

    @property
    def collection(self) -> Collection:
        return self.storage.get(self.path["name"])

    def confirm_update(self, collection: Collection) -> dict[str, Any]:
        done = self.flags.get("wait") == "true"
        return {
            "operation_id": collection.operations,
            "status": "completed" if done else "acknowledged",
        }


Operation = Callable[[Call], object]
Endpoint = Callable[[Request], Awaitable[Response]]


def list_collections(call: Call) -> object:
    return {"collections": [{"name": name} for name in call.storage.names]}


def describe_collection(call: Call) -> object:
    return call.collection.describe()


def has_collection(call: Call) -> object:
    return {"exists": call.path["name"] in call.storage.names}


def create_collection(call: Call) -> object:
    call.storage.create(call.path["name"], parse_collection(call.body))
    return True


def delete_collection(call: Call) -> object:
    return call.storage.delete(call.path["name"])


def create_index(call: Call) -> object:
    collection = call.collection
    collection.create_index(parse_index(call.body))
    return call.confirm_update(collection)


def upsert_points(call: Call) -> object:
    collection = call.collection
    collection.upsert(parse_upsert(call.body, collection.config.size))
    return call.confirm_update(collection)


def delete_points(call: Call) -> object:
    collection = call.collection
    collection.update(parse_deletion(call.body))
    return call.confirm_update(collection)


def retrieve_points(call: Call) -> object:
    return call.collection.retrieve(parse_selection(call.body))


def retrieve_point(call: Call) -> object:
    text = call.path["id"]
    point_id = parse_point_id(int(text) if INTEGER_ID.fullmatch(text) else text)
    found = call.collection.retrieve(Selection([point_id], with_payload=True, with_vector=True))
    if not found:
        raise NotFoundError(f"Not found: Point with id {text} does not exists!")
    return found[0]


def scroll_points(call: Call) -> object:
    return call.collection.scroll(parse_scroll(call.body))


def count_points(call: Call) -> object:
    return {"count": call.collection.count(parse_count(call.body))}


def query_points(call: Call) -> object:
    collection = call.collection
    return {"points": collection.query(parse_query(call.body, collection.config.size))}


async def show_root(_: Request) -> Response:
    return to_json(200, {"title": TITLE, "version": QDRANT_VERSION})


async def show_health(_: Request) -> Response:
    return PlainTextResponse("healthz check passed")


async def show_readiness(_: Request) -> Response:
    return PlainTextResponse("all shards are ready")


def answer(operation: Operation) -> Endpoint:
    """Make an endpoint: read all of the request, run the operation, wrap what comes of it."""

    async def respond(request: Request) -> Response:
        started = time.perf_counter()
        try:
            flags = read_flags(request)
            body = await read_body(request)
            storage: Storage = request.app.state.storage
            result = operation(Call(storage, request.path_params, flags, body))
        except RefusalError as refusal:
            return refuse(refusal, time.perf_counter() - started)
        elapsed_s = time.perf_counter() - started
        return to_json(200, {"result": result, "status": "ok", "time": elapsed_s})

    return respond


def refuse_route(_: Call) -> object:
    raise UnsupportedError("this method and path")


async def answer_fault(_: Request, error: Exception) -> Response:
    """For a fault of ours; the server logs its traceback."""
    fault = {"error": f"Service internal error: {type(error).__name__}"}
    return to_json(500, {"status": fault, "time": 0.0})


def refuse(refusal: RefusalError, elapsed_s: float) -> Response:
    return to_json(refusal.status_code, {"status": {"error": str(refusal)}, "time": elapsed_s})


def to_json(status_code: int, content: object) -> Response:
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, status_code, media_type="application/json")


def read_flags(request: Request) -> Mapping[str, str]:
    """
    Raises:
        MalformedError: a query parameter is unknown or has no valid value.
    """
    for name, value in request.query_params.multi_items():
        if name not in QUERY_PARAMETERS or not QUERY_PARAMETERS[name].fullmatch(value):
            raise MalformedError(f"Wrong input: query parameter {name}={value[:100]}")
    return request.query_params


async def read_body(request: Request) -> bytes:
    """Read the body to its end, keeping no more of it than the limit.

    Raises:
        TooLargeError: it was over the limit.
        MalformedError: the client went away before its end.
    """
    chunks: list[bytes] = []
    size_bytes = 0
    try:
        async for chunk in request.stream():
            size_bytes += len(chunk)
            if size_bytes <= MAX_BODY_BYTES:
                chunks.append(chunk)
    except ClientDisconnect as error:
        raise MalformedError("The request ended before its body did") from error
    if size_bytes > MAX_BODY_BYTES:
        raise TooLargeError(
            f"JSON payload ({size_bytes} bytes) is larger than allowed (limit: {MAX_BODY_BYTES}"
            " bytes)."
        )
    return b"".join(chunks)


OPERATIONS: tuple[tuple[str, str, Operation], ...] = (
    ("GET", "/collections", list_collections),
    ("GET", "/collections/{name}", describe_collection),
    ("GET", "/collections/{name}/exists", has_collection),
    ("PUT", "/collections/{name}", create_collection),
    ("DELETE", "/collections/{name}", delete_collection),
    ("PUT", "/collections/{name}/index", create_index),
    ("PUT", "/collections/{name}/points", upsert_points),
    ("POST", "/collections/{name}/points", retrieve_points),
    ("GET", "/collections/{name}/points/{id}", retrieve_point),
    ("POST", "/collections/{name}/points/delete", delete_points),
    ("POST", "/collections/{name}/points/scroll", scroll_points),
    ("POST", "/collections/{name}/points/count", count_points),
    ("POST", "/collections/{name}/points/query", query_points),
)

ROUTES = [
    Route("/", show_root),
    Route("/healthz", show_health),
    Route("/livez", show_health),
    Route("/readyz", show_readiness),
    *(Route(path, answer(operation), methods=[method]) for method, path, operation in OPERATIONS),
    Route("/{path:path}", answer(refuse_route), methods=METHODS),
]
