"""Who may ask what: API keys, and nothing for other machines without. Used inside `webapp` only.

Without `EMBED_API_KEYS_FILE` only requests that arrive at a loopback address are answered. The
program that serves the app chooses where it listens, and does not tell the app: uvicorn's own flags
are read at the start, so that it is refused with a sentence; and whatever serves it, each request
says at which address of this machine it has arrived.
"""

import logging
from collections.abc import Sequence
from functools import lru_cache
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as Connection
from uvicorn.main import main as uvicorn_command

from tasks.errors import SettingsError
from tasks.settings import Settings
from webapp.failures import ProblemResponse
from webapp.keyring import KeyRing, Scope
from webapp.limits import REQUEST_KEY

logger = logging.getLogger("uvicorn.error")

OPEN = frozenset({"/livez", "/readyz"})
DOCUMENTATION = frozenset({"docs", "redoc", "openapi.json", "static-offline-docs"})
"""First parts of paths that show nothing but what this program is."""
SCOPES = {
    "embed": Scope.INGEST,
    "collections": Scope.INGEST,
    "jobs": Scope.INGEST,
    "queue": Scope.INGEST,
    "search": Scope.SEARCH,
    "v1": Scope.SEARCH,
}
"""By the first part of the path; all else needs `admin`."""
SCHEME = "Bearer"
ADVICE = "set EMBED_API_KEYS_FILE, and make keys with `embedmill keys add`"


def guard(app: FastAPI, settings: Settings) -> None:
    """Let nobody in without a key, or from elsewhere where there are none. Raises SettingsError."""
    ring = KeyRing(settings.api_keys_file) if settings.api_keys_file else None
    app.add_middleware(KeyGuard, ring=ring)


def check_address(settings: Settings, argv: Sequence[str]) -> None:
    """Raises SettingsError when uvicorn was told to listen to other machines, without keys."""
    host = _uvicorn_host(argv)
    if settings.api_keys_file is None and host is not None and not is_loopback(host):
        raise SettingsError(f"the web does not listen on {host} without API keys: {ADVICE}")


class KeyGuard:
    """Answers what is not allowed; passes on the rest."""

    def __init__(self, app: ASGIApp, ring: KeyRing | None) -> None:
        self._app, self._ring = app, ring

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        refusal = self._refuse(scope) if scope["type"] in {"http", "websocket"} else None
        await (refusal or self._app)(scope, receive, send)

    def _refuse(self, connection: Connection) -> ProblemResponse | None:
        path = connection["path"].removeprefix(connection.get("root_path", ""))
        if path in OPEN:
            return None
        if self._ring is None:
            return _refuse_strangers(connection)
        part = path.split("/", 2)[1] if path.startswith("/") else ""
        return None if part in DOCUMENTATION else self._check(connection, part)

    def _check(self, connection: Connection, part: str) -> ProblemResponse | None:
        assert self._ring is not None
        secret = _read_secret(connection)
        if secret is None:
            return _ask("key_missing", "send an API key: Authorization: Bearer KEY")
        try:
            key = self._ring.find(secret)
        except SettingsError as error:
            logger.error("%s", error)
            status = HTTPStatus.SERVICE_UNAVAILABLE
            return ProblemResponse(status, "keys_unreadable", "the API keys cannot be read here")
        if key is None:
            return _ask("key_invalid", "this API key is unknown or was revoked")
        needed = SCOPES.get(part, Scope.ADMIN)
        if not key.allows(needed):
            return _forbid("scope_missing", f"this needs an API key with the scope {needed}")
        connection[REQUEST_KEY] = key
        return None


def describe_keys(schema: dict[str, Any], settings: Settings) -> None:
    """Note in OpenAPI how to send a key, whether one is needed, and what is answered without."""
    schema["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for path, operations in schema["paths"].items():
        for operation in operations.values() if path not in OPEN else ():
            operation["security"] = [{"key": []}, *([] if settings.api_keys_file else [{}])]
            for status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
                answer = {"description": status.phrase, "content": content}
                operation["responses"].setdefault(str(int(status)), answer)


@lru_cache(maxsize=64)  # a machine has few addresses, and each request asks
def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that address, or name."""
    try:
        address = ip_address(host)
    except ValueError:
        return host.lower() == "localhost"
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def is_uvicorn(argv: Sequence[str]) -> bool:
    """Whether that is its command line; its child processes have it, too."""
    program = Path(argv[0])
    return (program.parent.name if program.name == "__main__.py" else program.name) == "uvicorn"


_CLOSED = f"other machines are not answered without API keys: {ADVICE} where the web runs"


def _uvicorn_host(argv: Sequence[str]) -> str | None:
    """What `--host`, or UVICORN_HOST, says; None when another program serves the app."""
    if not is_uvicorn(argv):
        return None
    context = uvicorn_command.make_context("uvicorn", list(argv[1:]))
    return str(context.params["host"])


def _refuse_strangers(connection: Connection) -> ProblemResponse | None:
    """Other machines; and web pages of other origins, whose simple requests a browser on this
    machine would send without asking. With keys they would have to ask first, and are refused."""
    if not _is_local(connection):
        return _forbid("keys_required", _CLOSED)
    origin, host = _find_header(connection, b"origin"), _find_header(connection, b"host")
    if host is not None and not is_loopback(_host_name(host)) and not _is_unix(connection):
        # a page whose name was made to mean this machine is of no other origin, to its browser
        return _forbid("host_refused", "without API keys only localhost is answered, by this name")
    if origin is None or origin.partition("://")[2] == host:
        return None
    return _forbid("origin_refused", "web pages of other origins are not answered without API keys")


def _is_local(connection: Connection) -> bool:
    """Whether it has arrived at a loopback address of this machine, or at a Unix socket."""
    host, _ = connection.get("server") or ("unknown", 0)
    return _is_unix(connection) or is_loopback(host)


def _is_unix(connection: Connection) -> bool:
    _, port = connection.get("server") or ("unknown", 0)
    return port is None


def _host_name(host: str) -> str:
    """Of a Host header: without its port, and without the brackets of an IPv6 address."""
    return host.rpartition("]")[0].removeprefix("[") or host.partition(":")[0]


def _read_secret(connection: Connection) -> str | None:
    scheme, _, secret = (_find_header(connection, b"authorization") or "").partition(" ")
    return secret.strip() if scheme.lower() == SCHEME.lower() and secret.strip() else None


def _find_header(connection: Connection, name: bytes) -> str | None:
    for own, value in connection["headers"]:
        if own == name:
            return str(value, "latin-1")
    return None


def _ask(code: str, detail: str) -> ProblemResponse:
    headers = {"WWW-Authenticate": SCHEME}
    return ProblemResponse(HTTPStatus.UNAUTHORIZED, code, detail, headers=headers)


def _forbid(code: str, detail: str) -> ProblemResponse:
    return ProblemResponse(HTTPStatus.FORBIDDEN, code, detail)
