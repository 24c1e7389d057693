"""Where the services are, for commands that talk to a running stack; only `compose` imports it.

What is given explicitly wins, then what `stack.json` in the data directory says, then the defaults.
"""

import json
from typing import Any
from urllib.parse import SplitResult

from compose.errors import StackError, WebRefused
from compose.record import STACK
from tasks.settings import Settings
from tasks.urls import redact, split_url

WEB_URL = "http://127.0.0.1:8080"


def find_web(settings: Settings, given: str | None = None) -> str:
    """The web's URL. Raises StackError when stack.json is damaged."""
    return (given or _recorded(settings, "web") or WEB_URL).rstrip("/")


def split_web(url: str) -> SplitResult:
    """The parts of a web's URL. Raises WebRefused for what is not an HTTP URL."""
    try:
        parts = split_url(url)
    except ValueError as error:
        raise WebRefused(f"{redact(url)!r} {error}", status=0) from error
    try:
        (parts.hostname or "").encode("idna")  # as it is looked up
    except UnicodeError as error:
        raise WebRefused(f"{redact(url)!r} has no host's name: {error}", status=0) from error
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise WebRefused(f"{redact(url)!r} is not an http:// or https:// URL", status=0)
    return parts


def find_services(settings: Settings) -> Settings:
    """The settings with the URLs of the Redis and the Qdrant that run. Raises StackError."""
    names = {"broker_url": "redis", "qdrant_url": "qdrant"}
    found = {
        field: url
        for field, service in names.items()
        if field not in settings.model_fields_set and (url := _recorded(settings, service))
    }
    return settings.model_copy(update=found)


def _recorded(settings: Settings, service: str) -> str | None:
    path = settings.data_dir / STACK
    try:
        content: dict[str, dict[str, Any]] = json.loads(path.read_bytes())
        url = content.get(service, {}).get("url")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError) as error:
        raise StackError(f"{path} cannot be read: {error}") from error
    return str(url) if url else None
