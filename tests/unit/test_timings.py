"""A pass says what it did and how long its parts took; the sums stay as small as they are."""

from collections.abc import Sequence

from tasks.messages import Document, Options, PlacedDocument
from tasks.settings import Settings
from tasks.statistics import BOUNDS, STAGES, Histogram, Increments
from tests.unit.test_pipeline import Recorder
from workers.fake import FakeEncoder
from workers.pipeline import run
from workers.timings import Timings


def passed(texts: Sequence[str], *, budget_tokens: int) -> Timings:
    timings = Timings()
    documents = [PlacedDocument(n, n, Document(str(n), text)) for n, text in enumerate(texts)]
    encoder = FakeEncoder(Settings(model="fake", fake_call_ms=5))
    run(documents, Options("c"), encoder, Recorder(), budget_tokens, timings=timings)
    return timings


def test_a_pass_counts_calls_tokens_and_padding() -> None:
    texts = ["four words of text", "and four more words", "five words in one more", "w " * 80]
    timings = passed(texts, budget_tokens=96)
    # 4, 4 and 5 tokens go together as 3 x 5, and eighty stand alone
    assert timings.model_calls == 2
    assert timings.computed_tokens == 3 * 5 + 80
    assert timings.padding_tokens == 3 * 5 - (4 + 4 + 5)
    assert timings.points == 4


def test_a_pass_says_where_its_time_went() -> None:
    seconds = passed(["one", "two words"], budget_tokens=2).seconds
    assert seconds["encode"] >= 2 * 0.005
    assert all(seconds[stage] > 0 for stage in ("tokenize", "upsert", "store_wait"))
    assert seconds["store_wait"] >= seconds["upsert"]  # nothing was left to encode meanwhile


def test_the_sums_do_not_grow_with_what_they_sum_up() -> None:
    increments = Increments()
    for number in range(10_000):
        for name in BOUNDS:
            increments.observe(name, number / 7)
    # a count for each bucket, one for what is above, and the sum
    assert len(increments.fields) <= sum(len(bounds) + 2 for bounds in BOUNDS.values())


def test_a_bucket_holds_what_is_at_most_its_bound() -> None:
    increments = Increments()
    for texts in (1, 2, 2, 3, 5000):
        increments.observe("pass_texts", texts)
    assert increments.fields["pass_texts:sum"] == 5008
    assert (increments.fields["pass_texts:0"], increments.fields["pass_texts:1"]) == (1, 2)
    shown = Histogram((1, 2, 4), (1, 2, 1, 1), 5008).cumulative()
    assert shown == [("1", 1), ("2", 3), ("4", 4), ("+Inf", 5)]


def test_every_stage_has_a_histogram() -> None:
    assert set(STAGES) <= BOUNDS.keys()
