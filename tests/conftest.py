"""Fixtures that more than one kind of test uses."""

import os
import signal
import tempfile
from collections.abc import Iterator

import pytest

from tasks.settings import Settings, get_settings
from tests.processes import free_port
from tests.redis_server import RedisServer, local_redis

REDIS_PORT = free_port()

# Settings, the Celery app and connections are read once a process, by whichever test is first: so
# they name the session's Redis before any test runs.
for _name in [name for name in os.environ if name.upper().startswith("EMBED_")]:
    del os.environ[_name]
os.environ["EMBED_BROKER_URL"] = f"redis://127.0.0.1:{REDIS_PORT}/0"
os.environ["EMBED_MODEL"] = "fake"
# nor is a settings file of whoever runs them read
os.environ["EMBED_DATA_DIR"] = f"{tempfile.gettempdir()}/embedmill-tests-{os.getpid()}"
os.environ["HF_HUB_OFFLINE"] = "1"
# Started in the background, a shell makes its children ignore SIGINT, and they theirs.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The session's Redis, which this process' settings name."""
    with local_redis(tmp_path_factory.mktemp("redis"), REDIS_PORT) as server:
        yield server


@pytest.fixture
def broker(redis_server: RedisServer) -> Iterator[RedisServer]:
    """The session's Redis, empty before and after: a worker of the next test would answer what this
    one has asked."""
    redis_server.client.flushdb()
    yield redis_server
    redis_server.client.flushdb()


@pytest.fixture
def settings(broker: RedisServer) -> Settings:
    """This process' settings, which name the session's Redis."""
    return get_settings()
