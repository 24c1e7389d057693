"""Lines of an upload as batches: in any chunks, with any line at fault, resumed anywhere."""

from collections.abc import Sequence

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import InvalidRequest, KeyReused
from tasks.messages import Options
from tasks.settings import Settings
from webapp.idempotency import Progress, begin_upload, mark_progress
from webapp.lines import BATCH_DOCUMENTS, Batch, LineReader, line_bytes

OPTIONS = Options("documents")
SETTINGS = Settings(queue_limit=16, max_text_bytes=200, max_metadata_bytes=2)
"""Batches of four."""

bodies = st.lists(
    st.one_of(
        st.integers(0, 5).map(lambda n: orjson.dumps({"text": f"text {n}", "id": str(n)})),
        st.integers(0, 5).map(lambda n: orjson.dumps({"text": f"text {n}"})),
        st.sampled_from([b"", b"  ", b"\r"]),
    ),
    max_size=30,
).map(b"\n".join)


def begun(found: str = "", from_line: int = 1) -> Progress:
    return begin_upload(found, OPTIONS, from_line)


def mark(progress: Progress) -> str:
    return mark_progress("key", "", progress, 60).after


def read(
    body: bytes, *, progress: Progress | None = None, from_line: int = 1, chunk: int = 7
) -> tuple[list[Batch], LineReader]:
    reader = LineReader(SETTINGS, progress or begun(), from_line, BATCH_DOCUMENTS)
    batches: list[Batch] = []
    for start in range(0, len(body), chunk):
        batches += reader.read(body[start : start + chunk])
        if reader.failure:
            return batches, reader
    return batches + reader.finish(), reader


def texts(batches: Sequence[Batch]) -> list[str]:
    return [document.text for batch in batches for document in batch.documents]


def expected(body: bytes) -> list[str]:
    return [orjson.loads(line)["text"] for line in body.split(b"\n") if line.strip()]


@given(bodies, st.integers(1, 50))
def test_all_lines_are_read_once_in_batches_that_hold_no_id_twice(body: bytes, chunk: int) -> None:
    batches, reader = read(body, chunk=chunk)
    assert reader.failure is None
    assert texts(batches) == expected(body)
    for batch in batches:
        assert len(batch.documents) <= 4
        given_ids = [document.id for document in batch.documents if len(document.id) == 1]
        assert len(set(given_ids)) == len(given_ids)


@given(bodies, st.data())
def test_an_upload_that_was_cut_off_goes_on_where_it_stopped(
    body: bytes, data: st.DataObject
) -> None:
    batches, _ = read(body)
    kept = batches[: data.draw(st.integers(0, len(batches)))]
    found = mark(kept[-1].progress) if kept else ""
    again, reader = read(body, progress=begun(found))
    assert reader.failure is None
    assert texts(kept) + texts(again) == expected(body)
    if kept:
        line = kept[-1].progress.next_line
        rest = b"\n".join(body.split(b"\n")[line - 1 :])
        continued, _ = read(rest, progress=begun(found, line), from_line=line)
        assert texts(kept) + texts(continued) == expected(body)
        last = (continued or kept)[-1].progress
        assert (last.chain, last.documents) == (batches[-1].progress.chain, len(expected(body)))


def line(n: int) -> bytes:
    return orjson.dumps({"text": f"text {n}"}) + b"\n"


@pytest.mark.parametrize("numbers", [[0, 9, 2, 3, 4, 5], [0, 9, 2, 3], [0, 1, 2], [9]])
def test_a_repeated_upload_that_differs_is_refused(numbers: list[int]) -> None:
    batches, _ = read(b"".join(map(line, range(6))))
    found = mark(batches[0].progress)
    again, reader = read(b"".join(map(line, numbers)), progress=begun(found))
    assert again == []
    assert reader.failure is not None
    assert isinstance(reader.failure.error, KeyReused)


def test_a_mark_holds_for_its_own_options_and_lines() -> None:
    found = mark(read(b"".join(map(line, range(6))))[0][0].progress)
    with pytest.raises(KeyReused):
        begin_upload(found, Options("other"), 1)
    with pytest.raises(KeyReused):
        begin_upload("body 0f job", OPTIONS, 1)
    with pytest.raises(InvalidRequest, match="began with line 1 and goes on with line 5"):
        begin_upload(found, OPTIONS, 3)


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (b"{", "json_invalid"),
        (b'"text"', "document_invalid"),
        (b'{"text": ""}', "text_empty"),
        (b'{"text": "\xff"}', "json_invalid"),
        (b'{"text": "' + b"x" * line_bytes(SETTINGS), "request_too_large"),
    ],
)
@pytest.mark.parametrize("chunk", [5, 100_000])
def test_what_stands_before_a_bad_line_is_read_and_nothing_after_it(
    bad: bytes, code: str, chunk: int
) -> None:
    body = b"\n".join([line(0), line(1).strip(), bad, line(2)])  # line 2 is blank
    batches, reader = read(body, chunk=chunk)
    assert texts(batches) == ["text 0", "text 1"]
    assert reader.failure is not None
    assert (reader.failure.line, reader.failure.error.code) == (4, code)
    assert batches[-1].progress.next_line == 4


def test_a_byte_order_mark_is_no_part_of_the_first_line() -> None:
    assert texts(read(b"\xef\xbb\xbf" + line(0))[0]) == ["text 0"]
