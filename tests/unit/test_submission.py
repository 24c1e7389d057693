"""From documents to messages."""

import base64
import os
import pickle
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks import app, errors
from tasks.messages import (
    MESSAGE_BYTES,
    MESSAGE_DOCUMENTS,
    TASK_NAME,
    Document,
    OnLong,
    Options,
    point_id,
    text_id,
)
from tasks.submission import build_submission, envelope, slice_job

lengths = st.lists(st.integers(1, 300_000), min_size=1, max_size=200)


@given(lengths)
def test_slices_are_bounded_and_keep_the_order(sizes: list[int]) -> None:
    documents = [Document(str(n), "x" * size) for n, size in enumerate(sizes)]
    slices = slice_job("job", documents)
    assert [row["id"] for part in slices for row in part.documents] == [d.id for d in documents]
    expected_start = 0
    for part in slices:
        assert part.place["start"] == expected_start
        assert part.place["count"] == len(part.documents) == len(part.sizes)
        assert len(part.documents) <= MESSAGE_DOCUMENTS
        assert sum(part.sizes) <= MESSAGE_BYTES or len(part.documents) == 1
        expected_start += part.place["count"]
    assert len({part.task_id for part in slices}) == len(slices)


def test_a_job_of_one_message_has_the_id_of_its_task() -> None:
    documents = [Document(str(n), "x") for n in range(65)]
    assert [part.task_id for part in slice_job("job", documents)] == ["job.0", "job.1"]
    assert [part.task_id for part in slice_job("job", documents, split=False)] == ["job"]


def read(packed: bytes) -> dict[str, Any]:
    """An envelope with its body decoded, without what differs in every message."""
    message: dict[str, Any] = orjson.loads(packed)
    message["body"] = orjson.loads(base64.b64decode(message["body"]))
    assert len(message["properties"].pop("delivery_tag")) == 36
    return message


documents = st.builds(
    Document,
    id=st.text(),
    text=st.text(),
    metadata=st.none() | st.dictionaries(st.text(), st.none() | st.text() | st.floats(-1e9, 1e9)),
)


@given(st.lists(documents, min_size=1, max_size=4), st.sampled_from(OnLong))
def test_a_message_is_the_one_that_celery_makes(written: list[Document], on_long: OnLong) -> None:
    slices = slice_job("job", written)
    submission = build_submission(app, slices, Options("notes", on_long))
    for part, packed in zip(slices, submission.envelopes, strict=True):
        made = app.amqp.create_task_message(
            part.task_id,
            TASK_NAME,
            (part.documents,),
            {"collection": "notes", "on_long": str(on_long)},
            argsrepr=f"({len(part.documents)} document{'s' * (len(part.documents) > 1)})",
            kwargsrepr="{'collection': 'notes'}",
            ignore_result=True,
        )
        made.headers["embedmill"] = dict(part.place)
        assert read(packed) == read(envelope(made, "embed"))


def test_a_message_names_the_process_that_sends_it() -> None:
    def origin() -> str:
        slices = slice_job("job", [Document("1", "a")])
        (packed,) = build_submission(app, slices, Options("notes")).envelopes
        name: str = orjson.loads(packed)["headers"]["origin"]
        return name

    assert f"gen{os.getpid()}@" in origin()
    child = os.fork()
    if child == 0:
        os._exit(0 if f"gen{os.getpid()}@" in origin() else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_ids_are_stable_for_ever() -> None:
    assert text_id("hello world") == "b94d27b9934d3e08a52e52d7da7dabfa"
    assert point_id("documents", "1", 0) == "6024d56b-8067-5d66-b844-3b274f0e00db"


@pytest.mark.parametrize(
    "error",
    [
        errors.QueueFull("full", retry_after_s=3),
        errors.InvalidDocument("bad", index=4, code="text_empty"),
        errors.StoreDown("down"),
    ],
    ids=repr,
)
def test_errors_survive_the_way_between_processes(error: errors.EmbedError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (str(copy), copy.__dict__) == (str(error), error.__dict__)
