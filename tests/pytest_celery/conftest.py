"""pytest-celery's fixtures, with our broker and our worker behind them.

Containers where a Docker engine answers, else processes of this machine: the tests do not know.
`python -m pytest -p celery -p docker_tools tests/pytest_celery` runs them.
"""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery
from pytest_celery import CeleryTestBackend, CeleryTestBroker, CeleryTestWorker

from tests.pytest_celery.containers import (
    default_redis_broker_command,
    embedmill_environment,
    embedmill_image,
    embedmill_qdrant,
    embedmill_worker,
)
from tests.pytest_celery.local import LocalRedis, LocalWorker
from tests.qdrant_server import local_qdrant
from tests.redis_server import local_redis
from tests.worker import local_worker

__all__ = [
    "default_redis_broker_command",
    "embedmill_environment",
    "embedmill_image",
    "embedmill_qdrant",
    "embedmill_worker",
]


def has_engine() -> bool:
    """Whether a Docker engine answers."""
    program = shutil.which("docker")
    if program is None:
        return False
    return subprocess.run([program, "info"], capture_output=True, check=False).returncode == 0


BACKING = "docker" if has_engine() else "local"


def pytest_report_header() -> str:
    return f"pytest-celery: {'containers' if BACKING == 'docker' else 'processes of this machine'}"


@pytest.fixture
def worker_env() -> dict[str, str]:
    """A slow pass of each document, and messages that come back soon."""
    return {
        "EMBED_MODEL": "fake",
        "EMBED_CONCURRENCY": "1",
        "EMBED_FAKE_CALL_MS": "50",
        "EMBED_HANDOVER_DOCUMENTS": "1",
        "EMBED_VISIBILITY_TIMEOUT_S": "10",
    }


@pytest.fixture
def local_broker(tmp_path: Path) -> Iterator[CeleryTestBroker]:
    with local_redis(tmp_path) as server:
        yield CeleryTestBroker(LocalRedis(server))


@pytest.fixture
def docker_broker(celery_redis_broker: CeleryTestBroker) -> CeleryTestBroker:
    return celery_redis_broker


@pytest.fixture
def celery_broker(request: pytest.FixtureRequest) -> CeleryTestBroker:
    """The Redis of queue and ledger."""
    broker: CeleryTestBroker = request.getfixturevalue(f"{BACKING}_broker")
    return broker


@pytest.fixture
def celery_backend(celery_broker: CeleryTestBroker) -> CeleryTestBackend:
    """The same one keeps the results."""
    return CeleryTestBackend(celery_broker.container)


@pytest.fixture
def local_celery_worker(
    worker_env: dict[str, str],
    celery_broker: CeleryTestBroker,
    celery_setup_app: Celery,
    tmp_path: Path,
) -> Iterator[CeleryTestWorker]:
    with local_qdrant(tmp_path / "qdrant") as qdrant:
        own = {"EMBED_BROKER_URL": celery_broker.config()["url"], "EMBED_QDRANT_URL": qdrant.url}
        with local_worker(tmp_path, worker_env | own, concurrency=1) as worker:
            yield CeleryTestWorker(LocalWorker(worker), celery_setup_app)


@pytest.fixture
def docker_celery_worker(
    request: pytest.FixtureRequest, celery_setup_app: Celery
) -> CeleryTestWorker:
    return CeleryTestWorker(request.getfixturevalue("embedmill_worker"), celery_setup_app)


@pytest.fixture
def celery_worker(request: pytest.FixtureRequest) -> CeleryTestWorker:
    """Our worker, with the fake encoder."""
    worker: CeleryTestWorker = request.getfixturevalue(f"{BACKING}_celery_worker")
    return worker
