"""What `embedmill doctor` says of servers that are not as they should be."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from click.testing import CliRunner

from compose.checks import (
    Finding,
    Level,
    check_model,
    check_qdrant,
    check_redis,
    check_settings,
    check_threads,
    check_web,
    check_workers,
)
from compose.cli import main
from tasks.messages import ModelCard
from tasks.presence import WorkerPresence, announce
from tasks.settings import MIB, Settings, get_settings
from tests.processes import free_port
from tests.qdrant_server import LocalQdrant, local_qdrant
from tests.redis_server import RedisServer, local_redis


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis whose configuration may be changed."""
    with local_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def qdrant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalQdrant]:
    with local_qdrant(tmp_path_factory.mktemp("qdrant")) as server:
        yield server


def levels(findings: Iterator[Finding]) -> dict[str, Level]:
    """Each finding's level by the first word of its detail."""
    return {finding.detail.split()[0]: finding.level for finding in findings}


@pytest.mark.parametrize(
    ("option", "value", "level"),
    [
        ("appendfsync", "always", Level.OK),
        ("appendfsync", "everysec", Level.WARNING),
        ("appendonly", "no", Level.PROBLEM),
        ("maxmemory-policy", "noeviction", Level.OK),
        ("maxmemory-policy", "allkeys-lru", Level.PROBLEM),
        ("maxmemory", "0", Level.WARNING),
        ("maxmemory", str(300 * MIB), Level.PROBLEM),
        ("maxmemory", str(400 * MIB), Level.WARNING),
        ("maxmemory", str(512 * MIB), Level.OK),
    ],
)
def test_redis_configuration(option: str, value: str, level: Level, own_redis: RedisServer) -> None:
    before = own_redis.client.config_get(option)
    own_redis.client.config_set(option, value)
    try:
        found = levels(check_redis(Settings(broker_url=own_redis.url, queue_bytes=256 * MIB)))
    finally:
        own_redis.client.config_set(option, str(before[option]))
    shown = "appendonly" if option == "appendfsync" else option
    assert found[shown] is level
    assert found["valkey"] is Level.OK


def test_a_redis_that_hides_its_configuration(own_redis: RedisServer) -> None:
    client: redis.Redis = own_redis.client
    client.acl_setuser("guest", enabled=True, nopass=True, commands=["+info", "+ping"])
    url = own_redis.url.replace("//", "//guest:secret@")
    findings = list(check_redis(Settings(broker_url=url)))
    assert [finding.level for finding in findings] == [Level.OK, Level.WARNING]
    assert "secret" not in "".join(finding.detail for finding in findings)


def test_servers_that_are_not_there() -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    settings = Settings(broker_url=f"redis://{nowhere}/0", qdrant_url=f"http://{nowhere}")
    for check in (check_redis, check_qdrant):
        (finding,) = check(settings)
        assert finding.level is Level.PROBLEM
        assert "does not answer" in finding.detail
        assert "embedmill up" in finding.advice
    assert not list(check_workers(settings))  # Redis' absence is said once
    assert [finding.level for finding in check_web(f"http://{nowhere}")] == [Level.WARNING]


def test_a_collection_of_another_model(qdrant: LocalQdrant) -> None:
    settings = Settings(qdrant_url=qdrant.url, model="fake", collection="made")
    assert [finding.level for finding in check_qdrant(settings)] == [Level.OK, Level.OK]
    with qdrant.connect() as client:
        vectors = {"size": 8, "distance": "Cosine"}
        client.http.client.request(  # the client's own call takes no plain metadata
            type_=object,
            method="PUT",
            url="/collections/made",
            json={"vectors": vectors, "metadata": {"embedmill": {"model": "x", "dimension": 8}}},
        )
    (finding,) = check_qdrant(settings)
    assert finding.level is Level.PROBLEM
    assert "made by x with 8 dimensions" in finding.detail


@pytest.mark.parametrize(
    ("warm", "model", "level"),
    [(2, "fake", Level.OK), (1, "fake", Level.WARNING), (2, "other", Level.PROBLEM)],
)
def test_workers(warm: int, model: str, level: Level, own_redis: RedisServer) -> None:
    own_redis.client.flushdb()
    settings = Settings(broker_url=own_redis.url, model="fake")
    (finding,) = check_workers(settings)
    assert (finding.level, finding.detail) == (Level.PROBLEM, "none consumes the queue")
    card = ModelCard(model, 384, 256, "cpu")
    announce(own_redis.client, WorkerPresence("w", 1, 2, warm, card), ttl_s=60)
    (finding,) = check_workers(settings)
    assert finding.level is level


def test_more_threads_than_cores_are_warned_about() -> None:
    assert [f.level for f in check_threads(Settings(device="cpu"))] == [Level.OK]
    crowded = Settings(device="cpu", concurrency=512, threads=8)
    assert [f.level for f in check_threads(crowded)] == [Level.WARNING]


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    (finding,) = check_model(Settings(model=str(tmp_path / "absent")))
    assert finding.level is Level.PROBLEM
    (finding,) = check_model(Settings(model="fake"))
    assert finding.level is Level.WARNING


def test_settings_are_shown_without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EMBED_MODEL")
    monkeypatch.delenv("EMBED_DATA_DIR")
    (finding,) = check_settings(Settings(broker_url="redis://me:secret@host/0", queue_limit=7))
    assert finding.detail == "EMBED_BROKER_URL=redis://***@host/0, EMBED_QUEUE_LIMIT=7"


def test_the_report_ends_with_a_count_and_its_status(
    own_redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("EMBED_BROKER_URL", own_redis.url)
    monkeypatch.setenv("EMBED_QDRANT_URL", nowhere)
    monkeypatch.setenv("EMBED_MODEL", "fake")
    monkeypatch.setenv("EMBED_DATA_DIR", str(tmp_path))
    monkeypatch.setattr("compose.doctor.get_settings", get_settings.__wrapped__)
    result = CliRunner().invoke(main, ["doctor", "--url", nowhere])
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    problem = next(line for line in lines if line.startswith("problem  qdrant"))
    assert lines[lines.index(problem) + 1].strip().startswith("-> start it")
    assert lines[-1].startswith("Problems: ")


def test_wrong_settings_are_the_only_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBED_QUEUE_LIMITS", "7")
    monkeypatch.setattr("compose.doctor.get_settings", get_settings.__wrapped__)
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 1
    assert "did you mean EMBED_QUEUE_LIMIT?" in result.stdout
    assert result.stdout.endswith("Problems: 1, warnings: 0.\n")
