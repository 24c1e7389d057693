"""What ends without work although a deletion has won over it: what was written of it goes first."""

from typing import Any
from unittest.mock import Mock

import pytest

from tasks.admission import ledger, redis_client
from tasks.celery import app
from tasks.claims import Claim
from tasks.client import Job, delete, submit
from tasks.ledger import run
from tasks.letters import read_letters
from tasks.messages import Coordinates
from tasks.replay import pack_letters
from tasks.roster import read_number
from tasks.settings import Settings
from workers.request import EmbedRequest

pytestmark = pytest.mark.usefixtures("broker")


@pytest.fixture
def written(settings: Settings) -> Coordinates:
    """The message of a text that was given back after a deletion had won over what it wrote."""
    place, deletion = (_place(job) for job in (submit([_DOCUMENT]), delete(["a"])))
    run(redis_client(), ledger().claim(place, ["a"]))
    run(redis_client(), ledger().claim(deletion, ["a"]))
    run(redis_client(), ledger().release(place))
    return place


_DOCUMENT = {"id": "a", "text": "a text"}


def _place(job: Job) -> Coordinates:
    return Coordinates(v=1, job=job.id, start=0, count=1)


def _claim(place: Coordinates) -> Claim:
    return run(redis_client(), ledger().claim(place, ["a"]))


def _request(place: Coordinates) -> Any:
    request = EmbedRequest.__new__(EmbedRequest)
    request.place = place
    return request


def test_cancelling_leaves_it_to_its_next_delivery(written: Coordinates) -> None:
    assert Job(written["job"], ()).cancel() == 0
    assert list(_claim(written).overtaken) == [0]


def test_a_revoked_message_is_executed_for_it(
    written: Coordinates, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = _request(written)
    acknowledge = Mock()
    monkeypatch.setattr("celery.worker.request.Request._announce_revoked", acknowledge)
    request._announce_revoked("revoked", False, None, False)
    assert (acknowledge.called, request._overtaken) == (False, True)
    assert list(_claim(written).overtaken) == [0]


def test_a_terminated_message_comes_back_for_it(
    written: Coordinates, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = _request(written)
    reject = Mock()
    monkeypatch.setattr(EmbedRequest, "reject", reject)
    monkeypatch.setattr("workers.request.task_ready", Mock())
    request._announce_revoked("terminated", True, 15, False)
    reject.assert_called_once_with(requeue=True)
    assert list(_claim(written).overtaken) == [0]


def test_a_letter_of_a_time_limit_has_its_number(settings: Settings) -> None:
    """Also that of a replayed document, which keeps its number."""
    place = _place(submit([_DOCUMENT]))
    number = _claim(place).sequence
    for _ in range(2):
        request = _request(place)
        request._args, request._kwargs = ([_DOCUMENT],), {}
        assert request._fail(1.0)
        (letter,) = read_letters(redis_client(), settings)
        assert letter.sequence == number > 0
        packed = pack_letters(app, [letter], settings)
        run(redis_client(), ledger().accept_all(packed.submissions))
        place = Coordinates(v=1, job=packed.submissions[0].job_id, start=0, count=1)
        assert read_number(redis_client(), place["job"], 0, settings) == number
