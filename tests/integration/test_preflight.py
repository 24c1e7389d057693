"""What a worker checks before it starts children."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from qdrant_client import models

from tasks.errors import ModelMismatch, SettingsError, StoreDown
from tasks.presence import COLLECTIONS, record_collection
from tasks.settings import Settings
from tests.processes import free_port
from tests.qdrant_server import LocalQdrant, local_qdrant
from tests.redis_server import RedisServer, local_redis
from tests.web_server import local_web
from workers.gpu_use import GpuMeter
from workers.heartbeat import Heartbeat
from workers.preflight import Collections, check_pool, check_redis, check_store
from workers.provenance import Provenance

PLAIN = models.VectorParams(size=384, distance=models.Distance.COSINE)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalQdrant]:
    with local_qdrant(tmp_path_factory.mktemp("qdrant")) as server, server.connect() as client:
        marks = {"theirs": "another", "ours": "fake", "unmarked": None}
        for name, model in marks.items():
            metadata = {"embedmill": {"model": model, "dimension": 384}} if model else None
            client.create_collection(name, vectors_config=PLAIN, metadata=metadata)
        yield server


def settings(server: LocalQdrant, **changes: object) -> Settings:
    return Settings.model_validate({"qdrant_url": server.url, "model": "fake", **changes})


def test_it_finds_who_made_which_collection(server: LocalQdrant) -> None:
    assert check_store(settings(server)) == Collections(
        {
            "theirs": Provenance("another", 384),
            "ours": Provenance("fake", 384),
            "unmarked": Provenance(None, 384),
        }
    )


def test_a_collection_that_was_deleted_is_open_to_any_model_again(
    server: LocalQdrant, broker: RedisServer
) -> None:
    own = settings(server, broker_url=broker.url)
    record_collection(broker.client, "deleted", "another", 384)
    heartbeat = Heartbeat(own, "worker@here", 1, GpuMeter([]))
    heartbeat.record(check_store(own))
    heartbeat.retire()
    assert set(broker.client.hkeys(COLLECTIONS)) == {b"theirs", b"ours"}


@pytest.mark.parametrize("collection", ["ours", "unmarked", "absent"])
def test_a_collection_that_fits_is_taken(server: LocalQdrant, collection: str) -> None:
    check_store(settings(server, collection=collection))


def test_a_collection_of_another_model_is_refused(server: LocalQdrant) -> None:
    with pytest.raises(ModelMismatch, match=r"made by another with 384 .* run fake with 384"):
        check_store(settings(server, collection="theirs"))


@pytest.mark.parametrize("collection", ["ours", "unmarked"])
def test_a_collection_of_another_dimension_is_refused(server: LocalQdrant, collection: str) -> None:
    with pytest.raises(ModelMismatch, match="run fake with 7"):
        check_store(settings(server, collection=collection, fake_dimension=7))


def test_a_store_that_is_not_there_is_named() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(StoreDown, match=f"EMBED_QDRANT_URL={url}"):
        check_store(Settings(model="fake", qdrant_url=url), patience_s=0.1)


def test_credentials_stay_out_of_the_sentence() -> None:
    url = f"http://user:secret@127.0.0.1:{free_port()}"
    with pytest.raises(StoreDown, match=r"http://\*\*\*@127") as caught:
        check_store(Settings(model="fake", qdrant_url=url), patience_s=0.1)
    assert "secret" not in str(caught.value)


@pytest.fixture
def careless(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that may lose what it has acknowledged, or drop it."""
    with local_redis(tmp_path) as own:
        own.client.config_set("appendfsync", "everysec")
        own.client.config_set("maxmemory-policy", "allkeys-lru")
        yield own


SAID = ("set appendfsync always", "set maxmemory-policy noeviction")


def test_a_worker_says_at_its_start_what_may_lose_texts(
    careless: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    check_redis(Settings(broker_url=careless.url))
    assert all(sentence in caplog.text for sentence in SAID)
    careless.client.config_set("appendonly", "no")
    check_redis(Settings(broker_url=careless.url))
    assert "set appendonly yes" in caplog.text


def test_the_web_says_it_too(careless: RedisServer, tmp_path: Path) -> None:
    with local_web(tmp_path, {"EMBED_BROKER_URL": careless.url}) as web:
        assert all(sentence in web.program.output() for sentence in SAID)


def test_apple_gpus_do_not_work_in_children() -> None:
    with pytest.raises(SettingsError, match="-P solo"):
        check_pool(Settings(device="mps"), forks=True)
    check_pool(Settings(device="mps"), forks=False)
