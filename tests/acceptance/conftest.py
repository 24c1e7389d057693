"""A stack of real processes with the fake encoder, shared by the acceptance tests."""

from collections.abc import Iterator

import pytest

from tests.acceptance.asking import QUERY_LIMIT
from tests.qdrant_server import LocalQdrant, local_qdrant
from tests.redis_server import RedisServer
from tests.web_server import WebServer, local_web
from tests.worker import Worker, local_worker


@pytest.fixture(scope="session")
def qdrant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalQdrant]:
    """The session's Qdrant."""
    with local_qdrant(tmp_path_factory.mktemp("qdrant")) as server:
        yield server


@pytest.fixture(scope="session")
def stack_env(redis_server: RedisServer, qdrant: LocalQdrant) -> dict[str, str]:
    """Settings of processes that share the session's Redis and Qdrant."""
    return {
        "EMBED_BROKER_URL": redis_server.url,
        "EMBED_QDRANT_URL": qdrant.url,
        "EMBED_MODEL": "fake",
    }


@pytest.fixture(scope="module")
def worker(stack_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker of two children, on an empty Redis."""
    with local_worker(tmp_path_factory.mktemp("worker"), stack_env) as worker:
        yield worker


@pytest.fixture(scope="module")
def web(stack_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """A web process that lets few queries wait."""
    env = {"EMBED_QUERY_LIMIT": str(QUERY_LIMIT), "EMBED_QUERY_TIMEOUT_S": "20"}
    with local_web(tmp_path_factory.mktemp("web"), stack_env | env) as server:
        yield server
