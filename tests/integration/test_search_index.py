"""Searching in a real server: what is found, and what is said instead."""

from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest

from tasks.errors import CollectionNotFound, ModelMismatch, StoreDown, StoreRejected
from tasks.messages import ModelCard, point_id
from tasks.queries import Search
from tests.processes import free_port
from tests.qdrant_server import LocalQdrant, local_qdrant
from workers.store import QdrantStore
from workers.upserts import Point

CARD = ModelCard("a-model", 4, 256, "cpu")
NEAR = np.array([1, 1, 0, 0], dtype=np.float32)


def new_store(url: str) -> QdrantStore:
    return QdrantStore(url, wait_s=60, on_collection=lambda *_: None)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalQdrant]:
    """With three points, and a collection for other tests."""
    with local_qdrant(tmp_path_factory.mktemp("qdrant")) as server:
        with closing(new_store(server.url)) as store:
            store.ensure_collection("documents", CARD)
            store.upsert("documents", [point(number) for number in range(3)])
        yield server


@pytest.fixture
def index(server: LocalQdrant) -> Iterator[QdrantStore]:
    with closing(new_store(server.url)) as store:
        yield store


def point(number: int) -> Point:
    vector = np.array([1, number, 0, 0], dtype=np.float32)
    payload = {"document_id": str(number), "sequence": 1, "metadata": {"n": number}}
    return Point(point_id("documents", str(number), 0), vector, payload)


def test_the_nearest_come_first(index: QdrantStore) -> None:
    best, second = index.search(Search("documents", 2), NEAR, CARD)
    assert (best["id"], best["payload"]["metadata"]) == (point(1).id, {"n": 1})
    assert best["score"] == pytest.approx(1, abs=1e-5)
    assert second["score"] < best["score"]


def test_a_filter_is_passed_on(index: QdrantStore) -> None:
    filtered = Search("documents", 9, {"must_not": [{"key": "metadata.n", "match": {"value": 1}}]})
    found = index.search(filtered, NEAR, CARD)
    assert {hit["payload"]["document_id"] for hit in found} == {"0", "2"}
    with pytest.raises(StoreRejected):
        index.search(Search("documents", 9, {"must": [{"key": 5}]}), NEAR, CARD)


def test_a_collection_that_is_not_there_is_not_made(index: QdrantStore) -> None:
    for _ in range(2):
        with pytest.raises(CollectionNotFound):
            index.search(Search("elsewhere", 1), NEAR, CARD)


def test_another_models_collection_is_refused(index: QdrantStore) -> None:
    index.search(Search("documents", 1), NEAR, CARD)
    for _ in range(2):
        with pytest.raises(ModelMismatch):
            index.search(Search("documents", 1), NEAR, ModelCard("b-model", 4, 256, "cpu"))


def test_who_searches_does_not_wait_for_a_store_that_is_away() -> None:
    with closing(new_store(f"http://127.0.0.1:{free_port()}")) as away:
        with pytest.raises(StoreDown):
            away.search(Search("documents", 1), NEAR, CARD)
