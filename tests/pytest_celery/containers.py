"""What pytest-celery's nodes wrap where a Docker engine answers: containers of our own image.

The fixtures are made by pytest-docker-tools' factories, as pytest-celery's own are.
"""

from pathlib import Path

import pytest
import yaml
from pytest_celery import CeleryTestBroker, CeleryWorkerContainer, RedisContainer
from pytest_docker_tools import build, container, fxtr
from pytest_docker_tools.wrappers import Container

ROOT = Path(__file__).parents[2]
SERVICES = yaml.safe_load((ROOT / "compose/compose.yaml").read_text())["services"]


@pytest.fixture
def default_redis_broker_command() -> list[str]:
    """It keeps what it acknowledges; later options win."""
    command: list[str] = RedisContainer.command("--appendonly", "yes", "--appendfsync", "always")
    return command


embedmill_qdrant = container(
    image=SERVICES["qdrant"]["image"], network="{default_pytest_celery_network.name}"
)

embedmill_image = build(path=str(ROOT), dockerfile="compose/Dockerfile", target="worker")


@pytest.fixture
def embedmill_environment(
    worker_env: dict[str, str], celery_broker: CeleryTestBroker, embedmill_qdrant: Container
) -> dict[str, str]:
    """Containers reach each other by their host names."""
    qdrant = embedmill_qdrant.attrs["Config"]["Hostname"]
    return {
        **worker_env,
        "EMBED_BROKER_URL": celery_broker.config()["url"],
        "EMBED_QDRANT_URL": f"http://{qdrant}:6333",
    }


embedmill_worker = container(
    image="{embedmill_image.id}",
    environment=fxtr("embedmill_environment"),
    network="{default_pytest_celery_network.name}",
    wrapper_class=CeleryWorkerContainer,
    timeout=120,
)
