"""The store against a real server: collections are made once, patience is bounded."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import orjson
import pytest
from qdrant_client import QdrantClient, models

from tasks.errors import ModelMismatch, StoreDown, StoreRejected
from tasks.messages import ModelCard, point_id
from tests.processes import free_port
from tests.qdrant_server import LocalQdrant, local_qdrant
from workers.store import QdrantStore
from workers.upserts import Point, Stored

CARD = ModelCard("a-model", 4, 256, "cpu")
Seen = list[tuple[str, str, int]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalQdrant]:
    with local_qdrant(tmp_path_factory.mktemp("qdrant")) as server:
        yield server


@pytest.fixture
def client(server: LocalQdrant) -> Iterator[QdrantClient]:
    with server.connect() as client:
        for row in client.get_collections().collections:
            client.delete_collection(row.name)
        yield client


@pytest.fixture
def seen() -> Seen:
    return []


@pytest.fixture
def store(server: LocalQdrant, client: QdrantClient, seen: Seen) -> Iterator[QdrantStore]:
    with opened(server.url, seen) as store:
        yield store


@contextmanager
def opened(url: str, seen: Seen | None = None, wait_s: float = 5.0) -> Iterator[QdrantStore]:
    record: Seen = [] if seen is None else seen
    store = QdrantStore(url, wait_s=wait_s, on_collection=lambda *row: record.append(row))
    try:
        yield store
    finally:
        store.close()


def point(number: int, **payload: object) -> Point:
    vector = np.array([1, number, 0, 0], dtype=np.float32)
    identity = point_id("documents", str(number), 0)
    return Point(identity, vector, {"document_id": str(number), "sequence": 1, **payload})


def test_a_collection_says_which_model_made_it(
    store: QdrantStore, client: QdrantClient, seen: Seen
) -> None:
    store.ensure_collection("documents", CARD)
    info = client.get_collection("documents")
    assert info.config.metadata == {"embedmill": {"model": "a-model", "dimension": 4}}
    assert info.config.params.vectors == models.VectorParams(
        size=4, distance=models.Distance.COSINE
    )
    assert info.payload_schema["document_id"].data_type == models.PayloadSchemaType.KEYWORD
    assert seen == [("documents", "a-model", 4)]


def test_it_is_looked_at_once_a_process(store: QdrantStore, seen: Seen) -> None:
    for _ in range(3):
        store.ensure_collection("documents", CARD)
    assert len(seen) == 1


def test_many_may_make_it_at_the_same_time(server: LocalQdrant, client: QdrantClient) -> None:
    def make(_: int) -> None:
        with opened(server.url) as store:
            store.ensure_collection("documents", CARD)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(make, range(8)))
    assert client.get_collection("documents").config.params.vectors is not None


def test_points_are_found_as_they_were_sent(store: QdrantStore, client: QdrantClient) -> None:
    store.ensure_collection("documents", CARD)
    metadata = {"ключ": [1, 2.5, None, {"깊은": True}]}
    store.upsert("documents", [point(1, text="안녕 👩‍👩‍👧‍👦", metadata=metadata), point(2)])
    [found] = client.retrieve("documents", [point(1).id], with_payload=True, with_vectors=True)
    assert found.payload == point(1, text="안녕 👩‍👩‍👧‍👦", metadata=metadata).payload
    assert found.vector == pytest.approx([0.7071068, 0.7071068, 0, 0])
    assert client.count("documents").count == 2


@pytest.mark.parametrize("other", [ModelCard("b", 4, 9, "cpu"), ModelCard("a-model", 5, 9, "cpu")])
def test_another_model_is_refused(
    server: LocalQdrant, store: QdrantStore, seen: Seen, other: ModelCard
) -> None:
    store.ensure_collection("documents", CARD)
    with opened(server.url, seen) as late, pytest.raises(ModelMismatch, match="was made by a-mo"):
        late.ensure_collection("documents", other)
    assert set(seen) == {("documents", "a-model", 4)}


def test_a_collection_without_our_mark_is_taken_if_it_fits(
    store: QdrantStore, client: QdrantClient
) -> None:
    client.create_collection(
        "theirs", vectors_config=models.VectorParams(size=4, distance=models.Distance.COSINE)
    )
    store.ensure_collection("theirs", CARD)
    with pytest.raises(ModelMismatch, match="a model with 4 dimensions"):
        store.ensure_collection("theirs", ModelCard("a-model", 5, 256, "cpu"))


def test_the_last_accepted_text_wins_whatever_arrives_when(
    store: QdrantStore, client: QdrantClient
) -> None:
    store.ensure_collection("documents", CARD)
    early = [_chunk(0, 1), _chunk(1, 1), _chunk(2, 1)]
    store.upsert("documents", [point(7, text="a neighbour"), *early])
    store.upsert("documents", [_chunk(0, 5), _chunk(1, 5)])
    store.upsert("documents", early)
    store.upsert("documents", [_chunk(n, 3) for n in range(4)])
    # refused at first, as something in the same call is older than what is there
    store.upsert("documents", [point(8, sequence=2), _chunk(0, 6)])
    records, _ = client.scroll("documents")
    left = {(r.payload["document_id"], r.payload["sequence"]) for r in records if r.payload}
    assert len(records) == 3
    assert left == {("7", 1), ("8", 2), ("long", 6)}


def _chunk(number: int, sequence: int) -> Point:
    identity = point_id("documents", "long", number)
    vector = np.array([1, number, 0, 0], dtype=np.float32)
    return Point(identity, vector, {"document_id": "long", "sequence": sequence})


def test_documents_are_deleted_as_far_as_they_are_older(
    store: QdrantStore, client: QdrantClient
) -> None:
    store.ensure_collection("documents", CARD)
    store.upsert("documents", [_chunk(n, 5) for n in range(3)])
    others = [point(number, sequence=number) for number in range(1, 101)]
    unnumbered = point(200)
    del unnumbered.payload["sequence"]
    client.upsert(
        "documents",
        [
            models.PointStruct(id=p.id, vector=[1, 0, 0, 0], payload=p.payload)
            for p in (unnumbered, *others)
        ],
    )
    store.delete("documents", {"long": 5, "200": 1} | {str(n): 51 for n in range(1, 101)})
    left = [row for row in store.read("documents", {"long", "200", *map(str, range(101))})]
    assert sorted(row.sequence for row in left if row.document_id != "long") == list(range(51, 101))
    assert [row.sequence for row in left if row.document_id == "long"] == [5, 5, 5]
    store.delete("documents", {"long": 6, "never was": 6})
    assert store.read("documents", {"long"}) == []


def test_what_is_stored_of_documents_can_be_read(store: QdrantStore, client: QdrantClient) -> None:
    store.ensure_collection("documents", CARD)
    assert store.read("documents", {"1"}) == []
    whole = point(1, sequence=7, chunks=1, fingerprint="f")
    store.upsert("documents", [whole, point(2)])
    assert store.read("documents", {"1", "3"}) == [Stored(whole.id, "1", 7, 1, "f")]
    assert store.read("documents", {"2"}) == [Stored(point(2).id, "2", 1)]


def test_without_a_collection_there_is_nothing_to_read_or_delete(
    store: QdrantStore, client: QdrantClient
) -> None:
    assert store.read("absent", {"1"}) == []
    store.delete("absent", {"1": 5})
    assert not client.collection_exists("absent")


def test_a_collection_that_was_deleted_is_made_again(
    store: QdrantStore, client: QdrantClient
) -> None:
    store.ensure_collection("documents", CARD)
    client.delete_collection("documents")
    store.upsert("documents", [point(1)])
    assert client.count("documents").count == 1
    assert "document_id" in client.get_collection("documents").payload_schema


def test_a_refusal_carries_the_servers_reason(store: QdrantStore) -> None:
    store.ensure_collection("documents", CARD)
    wrong = Point(point(1).id, np.ones(3, dtype=np.float32), point(1).payload)
    with pytest.raises(StoreRejected, match=r"(?i)dim"):
        store.upsert("documents", [wrong])


def test_a_text_that_is_no_unicode_is_refused(store: QdrantStore) -> None:
    store.ensure_collection("documents", CARD)
    with pytest.raises(StoreRejected, match="JSON"):
        store.upsert("documents", [point(1, text="\ud800")])


def test_a_server_that_comes_back_gets_its_points(
    server: LocalQdrant, client: QdrantClient, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("absent")
    port = free_port()
    with opened(f"http://127.0.0.1:{port}", wait_s=60) as store, ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(store.ensure_collection, "documents", CARD)
        with local_qdrant(folder, port) as late:
            waiting.result(60)
            with late.connect() as other:
                assert other.collection_exists("documents")


def test_patience_ends_with_store_down() -> None:
    began = time.monotonic()
    with (
        opened(f"http://127.0.0.1:{free_port()}", wait_s=0.5) as store,
        pytest.raises(StoreDown, match="does not answer"),
    ):
        store.ensure_collection("documents", CARD)
    assert time.monotonic() - began < 30


class Scripted(ThreadingHTTPServer):
    """A server that answers what it is told, one answer a request, the last one for ever."""

    def __init__(self, answers: list[tuple[int, dict[str, str]]]) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.answers = answers
        self.asked = 0

    def next_answer(self) -> tuple[int, dict[str, str]]:
        self.asked += 1
        return self.answers[min(self.asked, len(self.answers)) - 1]


class _Answer(BaseHTTPRequestHandler):
    def do_PUT(self) -> None:  # http.server's name
        assert isinstance(self.server, Scripted)
        self.rfile.read(int(self.headers["Content-Length"]))
        status, headers = self.server.next_answer()
        self._answer(status, headers, {"status": "completed", "operation_id": 1})

    def do_POST(self) -> None:
        """A scroll finds what was put."""
        self.rfile.read(int(self.headers["Content-Length"]))
        written = point(1)
        row = {"id": written.id, "payload": written.payload}
        self._answer(200, {}, {"points": [row], "next_page_offset": None})

    def _answer(self, status: int, headers: dict[str, str], result: object) -> None:
        body = orjson.dumps({"result": result, "status": "ok", "time": 0})
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def scripted() -> Iterator[Callable[..., Scripted]]:
    servers: list[Scripted] = []

    def start(*answers: tuple[int, dict[str, str]]) -> Scripted:
        servers.append(Scripted(list(answers)))
        Thread(target=servers[-1].serve_forever, args=(0.02,), daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("status", [429, 500, 503, 401])
def test_a_server_in_trouble_is_asked_again(scripted: Callable[..., Scripted], status: int) -> None:
    server = scripted((status, {}), (status, {}), (200, {}))
    with opened(f"http://127.0.0.1:{server.server_port}") as store:
        store.upsert("documents", [point(1)])
    assert server.asked == 3


@pytest.mark.parametrize("status", [400, 413, 422, 501])
def test_a_refusal_is_not_repeated(scripted: Callable[..., Scripted], status: int) -> None:
    server = scripted((status, {}))
    with opened(f"http://127.0.0.1:{server.server_port}") as store, pytest.raises(StoreRejected):
        store.upsert("documents", [point(1)])
    assert server.asked == 1


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured(scripted: Callable[..., Scripted], status: int) -> None:
    server = scripted((status, {"Retry-After": "1"}), (200, {}))
    began = time.monotonic()
    with opened(f"http://127.0.0.1:{server.server_port}") as store:
        store.upsert("documents", [point(1)])
    assert time.monotonic() - began >= 1


def test_a_longer_wait_than_our_patience_takes_all_of_it(
    scripted: Callable[..., Scripted],
) -> None:
    """Work that is given back sooner is fetched again at once, and so is the refusal."""
    server = scripted((429, {"Retry-After": "3600"}))
    began = time.monotonic()
    with opened(f"http://127.0.0.1:{server.server_port}", wait_s=0.5) as store:
        with pytest.raises(StoreDown):
            store.upsert("documents", [point(1)])
    assert time.monotonic() - began >= 0.5
    assert server.asked == 1
