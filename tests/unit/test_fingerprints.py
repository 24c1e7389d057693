"""A document that stands in the store as it would be written is left alone, and no other."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from tasks.errors import StoreRejected
from tasks.messages import Document, ModelCard, OnLong, Options, Outcome, PlacedDocument
from tasks.settings import Settings
from tests.unit.test_pipeline import CHUNK, LONG, Recorder
from workers.fake import FakeEncoder
from workers.fingerprints import fingerprint
from workers.pipeline import run
from workers.timings import Timings
from workers.upserts import Point, Stored

HELLO = Document("d", "hello world", {"a": 1, "b": [2.5, "c"]})


class Other(FakeEncoder):
    """The fake encoder, made otherwise."""

    def __init__(self, *, recipe: str = "", name: str = "fake", max_tokens: int = 256) -> None:
        super().__init__(Settings(model="fake"))
        self.recipe = recipe
        self.card = ModelCard(name, self.card.dimension, max_tokens, "cpu")


def place(
    *documents: Document, sequence: int = 100, uncontested: bool = True
) -> list[PlacedDocument]:
    return [
        PlacedDocument(number, sequence + number, document, uncontested=uncontested)
        for number, document in enumerate(documents)
    ]


def embed(
    placed: Sequence[PlacedDocument],
    store: Recorder,
    options: Options = CHUNK,
    encoder: FakeEncoder | None = None,
) -> tuple[list[Outcome], Timings]:
    timings = Timings()
    outcomes = run(placed, options, encoder or Other(), store, 512, timings=timings)
    assert {outcome.state for outcome in outcomes} == {"done"}
    return outcomes, timings


def unchanged(placed: Sequence[PlacedDocument], store: Recorder) -> list[bool]:
    return [outcome.unchanged for outcome in embed(placed, store)[0]]


def test_the_same_again_costs_neither_a_model_call_nor_a_write() -> None:
    store = Recorder()
    documents = [HELLO, Document("long", LONG), Document("other", "other text")]
    embed(place(*documents), store)
    before = dict(store.points)
    outcomes, timings = embed(place(*documents, sequence=200), store)
    assert [(one.unchanged, one.points) for one in outcomes] == [(True, 0)] * 3
    assert (timings.texts, timings.model_calls, timings.points) == (0, 0, 0)
    assert store.points == before


def test_what_differs_is_embedded_beside_what_does_not() -> None:
    store = Recorder()
    embed(place(HELLO, Document("e", "old")), store)
    again = place(HELLO, Document("e", "new"), Document("f", "first"), sequence=200)
    assert unchanged(again, store) == [True, False, False]
    assert store.texts() == {"hello world", "new", "first"}


@pytest.mark.parametrize(
    "other",
    [
        replace(HELLO, text="hello  world"),
        replace(HELLO, metadata=None),
        replace(HELLO, metadata={"a": 1, "b": ["c", 2.5]}),
    ],
)
def test_another_text_or_metadata_is_another_fingerprint(other: Document) -> None:
    assert fingerprint(other, CHUNK, Other()) != fingerprint(HELLO, CHUNK, Other())


def test_the_order_of_metadata_and_the_id_are_none() -> None:
    other = Document("e", HELLO.text, {"b": [2.5, "c"], "a": 1})
    assert fingerprint(other, CHUNK, Other()) == fingerprint(HELLO, CHUNK, Other())


def test_what_cannot_be_written_has_no_fingerprint() -> None:
    assert fingerprint(Document("d", "t", {"n": 2**70}), CHUNK, Other()) == ""


@pytest.mark.parametrize(
    "encoder", [Other(recipe="int8"), Other(name="another"), Other(max_tokens=128)]
)
def test_another_model_or_engine_embeds_anew(encoder: FakeEncoder) -> None:
    store = Recorder()
    embed(place(HELLO), store)
    ((outcome,), _) = embed(place(HELLO, sequence=200), store, encoder=encoder)
    assert not outcome.unchanged


def test_other_options_embed_anew() -> None:
    store = Recorder()
    embed(place(Document("long", LONG)), store)
    truncate = Options("documents", OnLong.TRUNCATE)
    ((outcome,), _) = embed(place(Document("long", LONG), sequence=200), store, truncate)
    assert (outcome.unchanged, outcome.truncated) == (False, True)


def test_whoever_is_not_alone_embeds_and_does_not_ask() -> None:
    store = Recorder()
    embed(place(HELLO, uncontested=False), store)
    assert unchanged(place(HELLO, sequence=200, uncontested=False), store) == [False]
    assert store.reads == 0


def test_a_delivery_that_comes_again_finishes_what_it_began() -> None:
    """Its own points may be there, and those of an earlier text still beside them."""
    store = Recorder()
    embed(place(HELLO), store)
    assert unchanged(place(HELLO), store) == [False]


def test_what_a_later_acceptance_has_stored_is_not_unchanged() -> None:
    store = Recorder()
    embed(place(HELLO, sequence=300), store)
    assert unchanged(place(HELLO, sequence=200), store) == [False]


def lose_a_chunk(points: list[Point]) -> list[Point]:
    return [point for point in points if point.payload["chunk"] != 1]


def keep_an_old_chunk(points: list[Point]) -> list[Point]:
    late = Point("late", points[0].vector, {**points[0].payload, "sequence": 50, "chunk": 7})
    return [*points, late]


def forget_a_fingerprint(points: list[Point]) -> list[Point]:
    return [Point(p.id, p.vector, {**p.payload, "fingerprint": ""}) for p in points]


def mix_two_acceptances(points: list[Point]) -> list[Point]:
    first, *others = points
    return [Point(first.id, first.vector, {**first.payload, "sequence": 99}), *others]


@pytest.mark.parametrize(
    "tamper", [lose_a_chunk, keep_an_old_chunk, forget_a_fingerprint, mix_two_acceptances]
)
def test_what_is_not_whole_is_made_whole(tamper: Callable[[list[Point]], list[Point]]) -> None:
    store = Recorder()
    embed(place(Document("long", LONG)), store)
    store.points = {point.id: point for point in tamper(list(store.points.values()))}
    assert unchanged(place(Document("long", LONG), sequence=200), store) == [False]


def test_the_same_document_twice_in_a_pass_is_unchanged_twice() -> None:
    store = Recorder()
    embed(place(HELLO), store)
    assert unchanged(place(HELLO, HELLO, sequence=200), store) == [True, True]


def test_a_store_that_does_not_answer_the_question_is_written_to() -> None:
    class Mute(Recorder):
        def read(self, collection: str, document_ids: object) -> list[Stored]:
            raise StoreRejected("no such question")

    store = Mute()
    embed(place(HELLO), store)
    assert unchanged(place(HELLO, sequence=200), store) == [False]
