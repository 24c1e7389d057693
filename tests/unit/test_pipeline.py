"""The pipeline settles each document once, and one bad document never hurts its neighbours."""

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import pytest

from tasks.errors import EncoderBroken, StoreDown, StoreRejected
from tasks.messages import Document, ModelCard, OnLong, Options, Outcome, PlacedDocument, point_id
from tasks.settings import Settings
from tests.processes import wait_until
from workers.encoder import TokenizedText, Vectors, encode_texts
from workers.fake import MAX_TOKENS, FakeEncoder
from workers.fingerprints import fingerprint
from workers.pipeline import run
from workers.plan import LEAST_POINTS
from workers.timings import Timings
from workers.upserts import MAX_POINTS, Point, Stored

CHUNK = Options("documents")
STORED = ("document_id", "sequence", "chunks", "fingerprint")
LONG = " ".join(f"word{number}." for number in range(2 * MAX_TOKENS + 10))


class Recorder:
    """A store in memory that refuses points whose text holds a given word."""

    def __init__(self, refused: str = "never refused") -> None:
        self.points: dict[str, Point] = {}
        self.calls: list[int] = []
        self.refused = refused
        self.reads = 0

    def ensure_collection(self, name: str, card: ModelCard) -> None: ...

    def read(self, collection: str, document_ids: Collection[str]) -> list[Stored]:
        self.reads += 1
        return [
            Stored(one.id, *(one.payload[name] for name in STORED))
            for one in self.points.values()
            if one.payload["document_id"] in document_ids
        ]

    def upsert(self, collection: str, points: Sequence[Point]) -> None:
        if any(self.refused in point.payload["text"] for point in points):
            raise StoreRejected("a point is not to its taste")
        self.calls.append(len(points))
        self.points.update((point.id, point) for point in points)

    def delete(self, collection: str, numbers: Mapping[str, int]) -> None:
        self.points = {
            name: point
            for name, point in self.points.items()
            if point.payload["sequence"] >= numbers.get(point.payload["document_id"], 0)
        }

    def close(self) -> None: ...

    def texts(self) -> set[str]:
        return {point.payload["text"] for point in self.points.values()}


class DownStore(Recorder):
    def upsert(self, collection: str, points: Sequence[Point]) -> None:
        raise StoreDown("no store")


class Picky(FakeEncoder):
    """Fails as models do: a whole call because of one text."""

    def __init__(self) -> None:
        super().__init__(Settings(model="fake"))
        self.calls: list[list[str]] = []

    def tokenize(self, texts: Sequence[str]) -> list[TokenizedText]:
        if "uncountable" in texts:
            raise TypeError("not a text")
        return super().tokenize(texts)

    def encode(self, texts: Sequence[TokenizedText]) -> Vectors:
        words = [text.text for text in texts]
        self.calls.append(words)
        if "poison" in words or "all fail" in self.calls[0]:
            raise RuntimeError("index out of range in self")
        vectors = super().encode(texts)
        if "nan" in words:
            vectors[words.index("nan")] = np.nan
        return vectors[:, :-1] if "narrow" in words else vectors


def place(*texts: str, ids: Sequence[str] = ()) -> list[PlacedDocument]:
    names = ids or [f"d{number}" for number in range(len(texts))]
    return [
        PlacedDocument(number, 100 + number, Document(name, text, {"n": number}))
        for number, (name, text) in enumerate(zip(names, texts, strict=True))
    ]


def embed(
    documents: Sequence[PlacedDocument],
    store: Recorder,
    options: Options = CHUNK,
    budget_tokens: int = 64,
) -> list[Outcome]:
    return run(documents, options, Picky(), store, budget_tokens, timings=Timings())


def test_each_document_is_done_and_stored() -> None:
    store = Recorder()
    outcomes = embed(place("one", "two words", "three more words"), store)
    assert [outcome.index for outcome in outcomes] == [0, 1, 2]
    assert {outcome.state for outcome in outcomes} == {"done"}
    assert store.texts() == {"one", "two words", "three more words"}


def test_a_point_has_exactly_the_promised_payload() -> None:
    store = Recorder()
    embed(place("hello world"), store)
    [point] = store.points.values()
    assert point.id == point_id("documents", "d0", 0)
    assert point.payload == {
        "text": "hello world",
        "document_id": "d0",
        "chunk": 0,
        "chunks": 1,
        "model": "fake",
        "sequence": 100,
        "metadata": {"n": 0},
        "fingerprint": fingerprint(Document("d0", "hello world", {"n": 0}), CHUNK, Picky()),
    }
    assert np.array_equal(point.vector, encode_texts(Picky(), ["hello world"])[0])


def test_vectors_belong_to_their_texts_whatever_the_plan() -> None:
    store = Recorder()
    texts = [" ".join(["w"] * (number % 7 + 1)) + f" {number}" for number in range(50)]
    embed(place(*texts), store, budget_tokens=16)
    for point in store.points.values():
        expected = encode_texts(Picky(), [point.payload["text"]])[0]
        assert np.array_equal(point.vector, expected)


def test_model_calls_keep_to_the_budget() -> None:
    encoder = Picky()
    run(
        place(*[f"four words of {n}" for n in range(40)]),
        CHUNK,
        encoder,
        Recorder(),
        16,
        timings=Timings(),
    )
    assert max(len(call) for call in encoder.calls) == 4


def test_a_text_that_stands_twice_in_a_pass_is_encoded_once() -> None:
    encoder, store = Picky(), Recorder()
    texts = ["again", "once", "again", f"{LONG} again", LONG, "poison", "poison"]
    outcomes = run(place(*texts), CHUNK, encoder, store, 16, timings=Timings())
    assert [outcome.state for outcome in outcomes] == ["done"] * 5 + ["failed"] * 2
    answered = [text for call in encoder.calls for text in call if "poison" not in call]
    assert len(answered) == len(set(answered))
    assert {point.payload["document_id"] for point in store.points.values()} == {
        f"d{number}" for number in range(5)
    }
    for point in store.points.values():
        assert np.array_equal(point.vector, encode_texts(Picky(), [point.payload["text"]])[0])


def test_a_long_text_becomes_chunks() -> None:
    store = Recorder()
    [outcome] = embed(place(LONG), store)
    points = sorted(store.points.values(), key=lambda point: int(point.payload["chunk"]))
    assert (outcome.state, outcome.points, outcome.truncated) == ("done", len(points), False)
    assert len(points) >= 3
    assert {point.payload["chunks"] for point in points} == {len(points)}
    assert " ".join(point.payload["text"] for point in points) == LONG


def test_a_long_text_is_truncated_on_wish_and_says_so() -> None:
    store = Recorder()
    outcomes = embed(place(LONG, "short"), store, Options("documents", OnLong.TRUNCATE))
    assert [(outcome.points, outcome.truncated) for outcome in outcomes] == [(1, True), (1, False)]


def test_a_long_text_fails_on_wish_with_its_length() -> None:
    store = Recorder()
    long, short = embed(place(LONG, "short"), store, Options("documents", OnLong.ERROR))
    assert (long.state, long.code, short.state) == ("failed", "text_too_long", "done")
    assert str(2 * MAX_TOKENS + 10) in long.detail
    assert str(MAX_TOKENS) in long.detail
    assert store.texts() == {"short"}


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        ("poison", "model_error"),
        ("uncountable", "model_error"),
        ("nan", "vector_invalid"),
        ("narrow", "model_error"),
    ],
)
def test_a_bad_document_fails_alone(bad: str, code: str) -> None:
    store = Recorder()
    outcomes = embed(place("one", bad, "two", "three"), store)
    assert [outcome.state for outcome in outcomes] == ["done", "failed", "done", "done"]
    assert outcomes[1].code == code
    assert outcomes[1].detail
    assert store.texts() == {"one", "two", "three"}


def test_a_document_that_the_store_refuses_fails_alone() -> None:
    store = Recorder(refused="bad")
    outcomes = embed(place("one", "bad", "two"), store)
    assert [outcome.state for outcome in outcomes] == ["done", "failed", "done"]
    assert outcomes[1].code == "store_rejected"
    assert store.texts() == {"one", "two"}


def test_a_chunk_that_fails_fails_its_whole_document() -> None:
    store = Recorder(refused="word300.")
    [outcome] = embed(place(LONG), store)
    assert outcome.state == "failed"


def test_a_store_that_is_away_is_nobodys_fault() -> None:
    with pytest.raises(StoreDown):
        embed(place("one", "two"), DownStore())


def test_a_model_that_reads_nothing_any_more_is_nobodys_fault() -> None:
    store = Recorder()
    with pytest.raises(EncoderBroken):
        embed(place("all fail", "two"), store)
    assert not store.points


def test_of_the_same_id_the_last_text_wins() -> None:
    store = Recorder()
    first, second = place("old", "new", ids=["same", "same"])
    outcomes = embed([second, first], store)
    assert {outcome.state for outcome in outcomes} == {"done"}
    assert store.texts() == {"new"}
    assert store.points[point_id("documents", "same", 0)].payload["sequence"] == 101


def test_an_older_text_is_stored_when_the_newer_fails() -> None:
    store = Recorder()
    outcomes = embed(place("old", "poison", ids=["same", "same"]), store)
    assert [outcome.state for outcome in outcomes] == ["done", "failed"]
    assert store.texts() == {"old"}


def test_upserts_are_bounded_and_keep_documents_together() -> None:
    store = Recorder()
    count = MAX_POINTS + 10
    embed(place(*[f"text {number}" for number in range(count)]), store, budget_tokens=512)
    assert store.calls == [MAX_POINTS, 10]


class Turns(Recorder):
    """A store that answers only after the model has been asked again, or is asked no more."""

    def __init__(self, encoder: Picky) -> None:
        super().__init__()
        self.encoder, self.in_turn = encoder, True

    def upsert(self, collection: str, points: Sequence[Point]) -> None:
        asked = len(self.encoder.calls)
        last = len(self.points) + len(points) == 2 * LEAST_POINTS
        self.in_turn &= last or wait_for(lambda: len(self.encoder.calls) > asked)
        super().upsert(collection, points)


def wait_for(condition: Callable[[], bool]) -> bool:
    wait_until(condition, "the model is asked while the store works")
    return True


def test_the_next_documents_are_encoded_while_the_store_works() -> None:
    encoder = Picky()
    store = Turns(encoder)
    documents = place(*[f"text {number}" for number in range(2 * LEAST_POINTS)])
    run(documents, CHUNK, encoder, store, 16, timings=Timings())
    assert store.in_turn
    assert store.calls == [LEAST_POINTS, LEAST_POINTS]


def test_a_store_that_goes_away_between_two_upserts_is_nobodys_fault() -> None:
    class Leaves(Recorder):
        def upsert(self, collection: str, points: Sequence[Point]) -> None:
            if self.calls:
                raise StoreDown("no store any more")
            super().upsert(collection, points)

    with pytest.raises(StoreDown):
        embed(place(*[f"text {n}" for n in range(2 * LEAST_POINTS)]), Leaves(), budget_tokens=16)


def test_a_document_of_very_many_chunks_is_sent_in_parts() -> None:
    store = Recorder()
    text = " ".join(["word."] * MAX_TOKENS * (MAX_POINTS + 20))
    [outcome] = embed(place(text), store)
    assert outcome.points == len(store.points) > MAX_POINTS
    assert max(store.calls) <= MAX_POINTS


def test_no_documents_are_no_work() -> None:
    assert embed([], Recorder()) == []
