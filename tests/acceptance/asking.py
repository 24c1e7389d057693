"""What tests of queries have in common."""

from tests.redis_server import RedisServer

QUERY_LIMIT = 200
"""Of the web that the fixture `web` serves."""


def left_over(broker: RedisServer) -> list[str]:
    """Keys that only queries have."""
    keys = [str(key) for key in broker.client.scan_iter("*")]
    return [key for key in keys if "quer" in key or "answers" in key]
