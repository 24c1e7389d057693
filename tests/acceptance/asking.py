"""What tests of queries have in common."""

import httpx

from tests.redis_server import RedisServer
from tests.web_server import WebServer

QUERY_LIMIT = 200
"""Of the web that the fixture `web` serves."""
TIMEOUT_S = 60


def ask(web: WebServer, *texts: str) -> httpx.Response:
    """Texts' vectors by the fake encoder."""
    body = {"input": texts, "model": "fake"}
    return httpx.post(f"{web.url}/v1/embeddings", json=body, timeout=TIMEOUT_S)


def left_over(broker: RedisServer) -> list[str]:
    """Keys that only queries have."""
    keys = [str(key) for key in broker.client.scan_iter("*")]
    return [key for key in keys if "quer" in key or "answers" in key]
