"""Fixtures of tests over HTTP."""

from collections.abc import Iterator

import httpx
import pytest

from tests.redis_server import RedisServer
from tests.web_server import WebServer


@pytest.fixture
def client(web: WebServer, broker: RedisServer) -> Iterator[httpx.Client]:
    """A client of the web that the test's module has started, on an empty Redis."""
    with httpx.Client(base_url=web.url) as client:
        yield client
