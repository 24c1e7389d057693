"""A document that kills its process is found, and nothing else goes with it."""

from pathlib import Path
from random import Random

import pytest

from tasks.letters import read_letters
from tasks.settings import get_settings
from tests.acceptance.chaos.books import Books
from tests.acceptance.chaos.parcels import LIST, Parcel, Sheet, pack_parcels
from tests.acceptance.chaos.senders import Senders
from tests.acceptance.chaos.stack import Stack, whole_stack
from tests.processes import wait_until
from workers.fake import FakeEncoder

DOCUMENTS = 1_000


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_one_document_in_a_thousand_kills_its_process(tmp_path: Path) -> None:
    chance = Random(7)
    parcels = poison(pack_parcels(DOCUMENTS, chance))
    with whole_stack(tmp_path, EMBED_FAKE_POISON="true", EMBED_QUEUE_LIMIT="2000") as stack:
        with Senders(stack.web.url, parcels, chance, clients=2, revised=0) as senders:
            wait_until(senders.done, "all is accepted", timeout_s=60)
            wait_until(lambda: outstanding(stack) == 0, "all is settled", timeout_s=120)
        books = Books(stack, senders.post.receipts)
        endings = [entry for roster in books.rosters.values() for entry in roster.entries]
        failed = [entry.id for entry in endings if entry.ending == "failed"]
        assert failed == ["poison"]
        assert sum(entry.ending == "done" for entry in endings) == DOCUMENTS - 1
        (letter,) = read_letters(stack.redis.client, get_settings())
        assert FakeEncoder.POISON in letter.text
        assert letter.attempts == stack.settings.poison_losses
        # one child more: nobody is a suspect before the first loss
        assert lost_children(stack) <= stack.settings.poison_losses + 1
        ids = {point.payload["document_id"] for point in books.points.values()}
        assert len(ids) == DOCUMENTS - 1
        assert "poison" not in ids


def poison(parcels: list[Parcel]) -> list[Parcel]:
    """Replace one document in the middle of a list of 64."""
    at = next(number for number, parcel in enumerate(parcels) if len(parcel) == LIST)
    sheets = list(parcels[at])
    sheets[LIST // 2] = Sheet("poison", f"this text says {FakeEncoder.POISON}")
    return [*parcels[:at], tuple(sheets), *parcels[at + 1 :]]


def lost_children(stack: Stack) -> int:
    return sum(log.count("exited with 'signal 9") for log in stack.logs().values())


def outstanding(stack: Stack) -> int:
    return int(stack.redis.client.hget("embedmill:outstanding", "texts") or 0)
