"""The web application: `uvicorn webapp.main:app --workers N`. Any number share one queue."""

import sys
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline

from tasks.errors import SettingsError
from tasks.settings import get_settings
from webapp import dead, embeddings, health, routes, search
from webapp.failures import handle_errors
from webapp.schemas import EmbeddingsIn, EmbedIn, ReplayIn, SearchIn
from webapp.state import lifespan

VERSION = "0.1.0"


def create_app() -> FastAPI:
    """An application with its routes; it connects when it starts serving."""
    app: FastAPI = FastAPIOffline(
        title="Embedmill",
        version=VERSION,
        summary="Turns texts into vectors in Qdrant, and loses none.",
        lifespan=lifespan,
        # as they are: each request would pay for the indirection of an included router
        routes=[
            route
            for module in (routes, embeddings, search, dead, health)
            for route in module.router.routes
        ],
    )
    handle_errors(app)
    app.openapi = lambda: _schema(app)  # type: ignore[method-assign]
    return app


def _schema(app: FastAPI) -> dict[str, Any]:
    """OpenAPI with the bodies that are read without FastAPI's help."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, summary=app.summary, routes=app.routes
        )
        components = schema["components"]["schemas"]
        for model in (EmbedIn, EmbeddingsIn, SearchIn, ReplayIn):
            body = model.model_json_schema(ref_template="#/components/schemas/{model}")
            components.update(body.pop("$defs", {}))
            components[model.__name__] = body
        _forget_fastapis_422(schema)
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
        get_settings()
    except SettingsError as error:
        sys.exit(f"embedmill: {error}")
    return create_app()


app = _validated()
