"""The web application: `uvicorn webapp.main:app --workers N`. Any number share one queue."""

import sys
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline

from tasks.errors import SettingsError
from tasks.settings import get_settings
from webapp import health, routes
from webapp.failures import handle_errors
from webapp.schemas import EmbedIn
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
        routes=[*routes.router.routes, *health.router.routes],
    )
    handle_errors(app)
    app.openapi = lambda: _schema(app)  # type: ignore[method-assign]
    return app


def _schema(app: FastAPI) -> dict[str, Any]:
    """OpenAPI with the body of `POST /embed`, which is read without FastAPI's help."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, summary=app.summary, routes=app.routes
        )
        body = EmbedIn.model_json_schema(ref_template="#/components/schemas/{model}")
        components = schema["components"]["schemas"]
        components.update(body.pop("$defs"))
        components["EmbedIn"] = body
        app.openapi_schema = schema
    return app.openapi_schema


def _validated() -> FastAPI:
    try:
        get_settings()
    except SettingsError as error:
        sys.exit(f"embedmill: {error}")
    return create_app()


app = _validated()
