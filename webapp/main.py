"""The web application: `uvicorn webapp.main:app --workers N`. Any number share one queue."""

import logging
import multiprocessing
import os
import signal
import sys
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline

from tasks.errors import SettingsError
from tasks.logs import format_logs
from tasks.settings import get_settings
from webapp import dead, deletions, embeddings, health, routes, search
from webapp.failures import handle_errors
from webapp.keys import check_address, describe_keys, guard, is_uvicorn
from webapp.schemas import DeleteIn, EmbeddingsIn, EmbedIn, Problem, ReplayIn, SearchIn
from webapp.state import lifespan

VERSION = "0.1.0"


def create_app() -> FastAPI:
    """An application with its routes; it connects when it starts serving. Raises SettingsError."""
    app: FastAPI = FastAPIOffline(
        title="Embedmill",
        version=VERSION,
        summary="Turns texts into vectors in Qdrant, and loses none.",
        lifespan=lifespan,
        # as they are: each request would pay for the indirection of an included router
        routes=[
            route
            for module in (routes, deletions, embeddings, search, dead, health)
            for route in module.router.routes
        ],
    )
    handle_errors(app)
    guard(app, get_settings())
    app.openapi = lambda: _schema(app)  # type: ignore[method-assign]
    return app


def _schema(app: FastAPI) -> dict[str, Any]:
    """OpenAPI with the bodies that are read, and the errors that are made, without FastAPI."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, summary=app.summary, routes=app.routes
        )
        components = schema["components"]["schemas"]
        for model in (EmbedIn, DeleteIn, EmbeddingsIn, SearchIn, ReplayIn, Problem):
            body = model.model_json_schema(ref_template="#/components/schemas/{model}")
            components.update(body.pop("$defs", {}))
            components[model.__name__] = body
        _forget_fastapis_422(schema)
        describe_keys(schema, get_settings())
        app.openapi_schema = schema
    return app.openapi_schema


def _forget_fastapis_422(schema: dict[str, Any]) -> None:
    """FastAPI notes its own 422 for every parameter; ours is a problem, where there is one."""
    own = "#/components/schemas/HTTPValidationError"
    for path in schema["paths"].values():
        for operation in path.values():
            content = operation["responses"].get("422", {}).get("content", {})
            if content.get("application/json", {}).get("schema", {}).get("$ref") == own:
                del operation["responses"]["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        schema["components"]["schemas"].pop(name, None)


def _validated() -> FastAPI:
    try:
        settings = get_settings()
        check_address(settings, sys.argv)
    except SettingsError as error:
        _end_with_parent()
        sys.exit(f"embedmill: {error}")
    # uvicorn has set its handlers before it imports this
    format_logs(settings, *map(logging.getLogger, ("uvicorn", "uvicorn.access")))
    return create_app()


def _end_with_parent() -> None:
    """uvicorn's main process would start a child that was refused again and again."""
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None and is_uvicorn(sys.argv):
        os.kill(parent.pid, signal.SIGTERM)


app = _validated()
