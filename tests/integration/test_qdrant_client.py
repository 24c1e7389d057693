"""The local Qdrant server, driven by an unmodified QdrantClient. Warnings are errors here."""

import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from tests.qdrant_server import LocalQdrant, local_qdrant

KEYWORD = models.PayloadSchemaType.KEYWORD
PLANE = models.VectorParams(size=2, distance=models.Distance.DOT)
VECTORS = {1: [1.0, 0.0], 2: [0.75, 0.5], 3: [0.0, 1.0], 4: [-1.0, 0.0]}
PAYLOADS: dict[int, dict[str, Any]] = {
    1: {"kind": "even", "n": 1, "flag": True, "tags": ["a", "b"]},
    2: {"kind": "odd", "n": 2, "flag": False, "tags": []},
    3: {"kind": "even", "n": 3, "nothing": None},
    4: {"kind": "odd", "n": 4, "inner": {"deep": "x"}},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalQdrant]:
    with local_qdrant(tmp_path_factory.mktemp("qdrant")) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: LocalQdrant) -> Iterator[QdrantClient]:
    with server.connect() as connected:
        yield connected


@pytest.fixture
def empty(client: QdrantClient) -> str:
    name = uuid.uuid4().hex
    client.create_collection(name, vectors_config=PLANE)
    return name


@pytest.fixture
def filled(client: QdrantClient, empty: str) -> str:
    client.upsert(
        empty,
        [
            models.PointStruct(id=number, vector=vector, payload=PAYLOADS[number])
            for number, vector in VECTORS.items()
        ],
        wait=True,
    )
    return empty


def condition(key: str, **test: Any) -> models.FieldCondition:
    return models.FieldCondition(key=key, **test)


def list_ids(client: QdrantClient, name: str, scroll_filter: models.Filter) -> list[int]:
    records, _ = client.scroll(name, scroll_filter=scroll_filter, limit=100)
    assert client.count(name, count_filter=scroll_filter, exact=True).count == len(records)
    return sorted(record.id for record in records if isinstance(record.id, int))


def test_the_client_finds_the_version_compatible(server: LocalQdrant) -> None:
    before = set(threading.enumerate())
    client = QdrantClient(url=server.url)
    for check in set(threading.enumerate()) - before:
        check.join()
    client.close()


def test_a_collection_is_created_described_listed_and_deleted(client: QdrantClient) -> None:
    name = "Dökumente v1"
    metadata = {"model": "fake", "dimension": 2, "nested": {"a": [1, None]}}
    assert not client.collection_exists(name)
    assert client.create_collection(name, vectors_config=PLANE, metadata=metadata)
    assert client.collection_exists(name)
    assert name in [found.name for found in client.get_collections().collections]
    info = client.get_collection(name)
    assert info.config.metadata == metadata
    assert info.config.params.vectors == PLANE
    assert (info.status, info.points_count) == (models.CollectionStatus.GREEN, 0)
    assert client.delete_collection(name)
    assert not client.collection_exists(name)
    assert not client.delete_collection(name)


def test_a_collection_is_not_created_twice(client: QdrantClient, empty: str) -> None:
    with pytest.raises(UnexpectedResponse) as caught:
        client.create_collection(empty, vectors_config=PLANE)
    assert caught.value.status_code == 409


def test_every_operation_on_an_absent_collection_is_404(client: QdrantClient) -> None:
    attempts: list[Callable[[], object]] = [
        lambda: client.get_collection("absent"),
        lambda: client.upsert("absent", [models.PointStruct(id=1, vector=[1.0, 0.0])]),
        lambda: client.count("absent"),
        lambda: client.scroll("absent"),
        lambda: client.retrieve("absent", [1]),
        lambda: client.query_points("absent", query=[1.0, 0.0]),
        lambda: client.delete("absent", models.PointIdsList(points=[1])),
        lambda: client.create_payload_index("absent", "kind", KEYWORD),
    ]
    for attempt in attempts:
        with pytest.raises(UnexpectedResponse) as caught:
            attempt()
        assert caught.value.status_code == 404


def test_points_come_back_as_they_were_written(client: QdrantClient, filled: str) -> None:
    found = client.retrieve(filled, [4, 1, 99, 1], with_vectors=True)
    assert sorted((p.id, p.vector, p.payload) for p in found) == [
        (1, VECTORS[1], PAYLOADS[1]),
        (4, VECTORS[4], PAYLOADS[4]),
    ]


def test_an_upsert_replaces_vector_and_payload(client: QdrantClient, filled: str) -> None:
    result = client.upsert(filled, [models.PointStruct(id=1, vector=[5.0, 5.0])], wait=True)
    assert result.status == models.UpdateStatus.COMPLETED
    (point,) = client.retrieve(filled, [1], with_vectors=True)
    assert (point.vector, point.payload) == ([5.0, 5.0], {})


def test_a_batch_of_columns_is_written(client: QdrantClient, empty: str) -> None:
    ids: list[int | str | UUID] = [7, str(uuid.uuid5(uuid.NAMESPACE_URL, "a"))]
    batch = models.Batch(ids=ids, vectors=[[1.0, 2.0], [3.0, 4.0]], payloads=[{"n": 1}, {}])
    client.upsert(empty, batch)
    found = client.retrieve(empty, ids, with_vectors=True)
    assert {point.id: (point.vector, point.payload) for point in found} == {
        ids[0]: ([1.0, 2.0], {"n": 1}),
        ids[1]: ([3.0, 4.0], {}),
    }


def test_without_waiting_the_answer_is_acknowledged(client: QdrantClient, empty: str) -> None:
    point = models.PointStruct(id=1, vector=[1.0, 0.0])
    assert client.upsert(empty, [point], wait=False).status == models.UpdateStatus.ACKNOWLEDGED


@pytest.mark.parametrize(
    ("mode", "update_filter", "written"),
    [
        (None, None, {1, 9}),
        (None, "n < 1", {9}),
        (None, "n < 2", {1, 9}),
        (models.UpdateMode.INSERT_ONLY, None, {9}),
        (models.UpdateMode.UPDATE_ONLY, None, {1}),
        (models.UpdateMode.UPDATE_ONLY, "n < 1", set()),
    ],
)
def test_a_conditional_upsert_writes_what_its_condition_allows(
    client: QdrantClient,
    filled: str,
    mode: models.UpdateMode | None,
    update_filter: str | None,
    written: set[int],
) -> None:
    bound = float(update_filter.split()[-1]) if update_filter else None
    client.upsert(
        filled,
        [models.PointStruct(id=i, vector=[9.0, 9.0], payload={"n": 9}) for i in (1, 9)],
        update_mode=mode,
        update_filter=models.Filter(must=condition("n", range=models.Range(lt=bound)))
        if update_filter
        else None,
    )
    found = client.retrieve(filled, [1, 9], with_vectors=True)
    assert {point.id for point in found if point.vector == [9.0, 9.0]} == written


def test_points_are_deleted_by_id_and_by_filter(client: QdrantClient, filled: str) -> None:
    client.delete(filled, models.PointIdsList(points=[1, 99]))
    assert list_ids(client, filled, models.Filter()) == [2, 3, 4]
    odd = models.Filter(must=[condition("kind", match=models.MatchValue(value="odd"))])
    client.delete(filled, models.FilterSelector(filter=odd))
    assert list_ids(client, filled, models.Filter()) == [3]


@pytest.mark.parametrize(
    ("clause", "ids"),
    [
        (condition("kind", match=models.MatchValue(value="even")), [1, 3]),
        (condition("kind", match=models.MatchAny(any=["even", "x"])), [1, 3]),
        (condition("kind", match=models.MatchAny(any=[])), []),
        (condition("kind", match=models.MatchExcept(**{"except": ["even"]})), [2, 4]),
        (condition("n", match=models.MatchValue(value=2)), [2]),
        (condition("flag", match=models.MatchValue(value=True)), [1]),
        (condition("flag", match=models.MatchValue(value=False)), [2]),
        (condition("tags[]", match=models.MatchValue(value="b")), [1]),
        (condition("inner.deep", match=models.MatchValue(value="x")), [4]),
        (condition("n", range=models.Range(gt=1, lte=3)), [2, 3]),
        (condition("flag", is_empty=True), [3, 4]),
        (condition("nothing", is_null=True), [3]),
        (models.IsEmptyCondition(is_empty=models.PayloadField(key="tags")), [2, 3, 4]),
        (models.IsNullCondition(is_null=models.PayloadField(key="nothing")), [3]),
        (models.HasIdCondition(has_id=[2, 3, 77]), [2, 3]),
        (models.Filter(must_not=[models.HasIdCondition(has_id=[1])]), [2, 3, 4]),
    ],
)
@pytest.mark.parametrize("indexed", [False, True])
def test_conditions_select_the_same_points_with_and_without_an_index(
    client: QdrantClient, filled: str, clause: models.Condition, ids: list[int], indexed: bool
) -> None:
    if indexed:
        client.create_payload_index(filled, "kind", KEYWORD)
    everything = [1, 2, 3, 4]
    rest = [number for number in everything if number not in ids]
    assert list_ids(client, filled, models.Filter(must=[clause])) == ids
    assert list_ids(client, filled, models.Filter(should=[clause])) == ids
    assert list_ids(client, filled, models.Filter(must_not=clause)) == rest


def test_a_keyword_index_is_described(client: QdrantClient, filled: str) -> None:
    client.create_payload_index(filled, "kind", field_schema=KEYWORD, wait=True)
    index = client.get_collection(filled).payload_schema["kind"]
    assert (index.data_type, index.points) == (KEYWORD, 4)


def test_the_nearest_points_come_first(client: QdrantClient, filled: str) -> None:
    points = client.query_points(filled, query=[1.0, 0.0], with_payload=False).points
    assert [(point.id, point.score) for point in points] == [(1, 1.0), (2, 0.75), (3, 0), (4, -1)]
    assert all(point.payload is None and point.vector is None for point in points)


def test_a_query_is_cut_filtered_and_projected(client: QdrantClient, filled: str) -> None:
    (point,) = client.query_points(
        filled,
        query=np.array([1.0, 0.0]),
        query_filter=models.Filter(must=[condition("n", range=models.Range(lte=3))]),
        score_threshold=0.0,
        limit=1,
        offset=1,
        with_payload=["n"],
        with_vectors=True,
        search_params=models.SearchParams(exact=True),
    ).points
    assert (point.id, point.payload, point.vector) == (2, {"n": 2}, VECTORS[2])


def test_a_score_threshold_cuts(client: QdrantClient, filled: str) -> None:
    points = client.query_points(filled, query=[1.0, 0.0], score_threshold=0.5).points
    assert [point.id for point in points] == [1, 2]


def test_payload_fields_are_excluded(client: QdrantClient, filled: str) -> None:
    (point,) = client.retrieve(
        filled, [4], with_payload=models.PayloadSelectorExclude(exclude=["n"])
    )
    assert point.payload == {"kind": "odd", "inner": {"deep": "x"}}


def test_a_query_by_id_leaves_that_point_out(client: QdrantClient, filled: str) -> None:
    name = "odd"
    odd = models.Filter(must=[condition("kind", match=models.MatchValue(value=name))])
    assert [p.id for p in client.query_points(filled, query=1).points] == [2, 3, 4]
    assert [p.id for p in client.query_points(filled, query=2, query_filter=odd).points] == [4]
    with pytest.raises(UnexpectedResponse) as caught:
        client.query_points(filled, query=99)
    assert caught.value.status_code == 404


@pytest.mark.parametrize(
    ("distance", "stored", "score"),
    [
        (models.Distance.COSINE, [0.6, 0.8], 0.6),
        (models.Distance.DOT, [3.0, 4.0], 6.0),
        (models.Distance.EUCLID, [3.0, 4.0], 17**0.5),
        (models.Distance.MANHATTAN, [3.0, 4.0], 5.0),
    ],
)
def test_distances_are_those_of_qdrant(
    client: QdrantClient, distance: models.Distance, stored: list[float], score: float
) -> None:
    name = uuid.uuid4().hex
    client.create_collection(name, models.VectorParams(size=2, distance=distance))
    client.upsert(name, [models.PointStruct(id=1, vector=[3.0, 4.0])])
    (point,) = client.query_points(name, query=[2.0, 0.0], with_vectors=True).points
    assert point.vector == pytest.approx(stored)
    assert point.score == pytest.approx(score)


def test_scrolling_visits_every_point_once(client: QdrantClient, empty: str) -> None:
    ids = {str(uuid.uuid5(uuid.NAMESPACE_URL, str(number))) for number in range(25)}
    client.upsert(empty, [models.PointStruct(id=item, vector=[1.0, 0.0]) for item in ids])
    seen: list[object] = []
    offset = None
    while True:
        records, offset = client.scroll(empty, limit=10, offset=offset, with_payload=False)
        seen += [record.id for record in records]
        if offset is None:
            break
    assert len(seen) == 25
    assert set(seen) == ids


def test_the_last_of_points_with_one_id_wins(client: QdrantClient, empty: str) -> None:
    client.upsert(empty, [models.PointStruct(id=1, vector=[float(i), 0.0]) for i in range(3)])
    (point,) = client.retrieve(empty, [1], with_vectors=True)
    assert point.vector == [2.0, 0.0]


def test_vectors_keep_float32_precision(client: QdrantClient, empty: str) -> None:
    vector = np.random.default_rng(7).normal(size=2).astype(np.float32)
    client.upsert(empty, [models.PointStruct(id=1, vector=vector.tolist())])
    (point,) = client.retrieve(empty, [1], with_vectors=True)
    assert np.array_equal(np.array(point.vector, dtype=np.float32), vector)
