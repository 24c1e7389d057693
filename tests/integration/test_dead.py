"""Dead letters on a real Redis and over HTTP: paged, replayed without loss, purged."""

from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import orjson
import pytest

from tasks.admission import ledger, redis_client
from tasks.celery import app
from tasks.client import submit
from tasks.errors import LetterNotFound
from tasks.ledger import run
from tasks.letters import DeadLetter, discard_letters, read_letters, write_letter
from tasks.messages import QUEUE, Coordinates, Document, Options, Outcome, PlacedDocument
from tasks.presence import record_collection
from tasks.replay import pack_letters
from tasks.roster import read_roster
from tasks.settings import Settings
from tests.redis_server import RedisServer
from tests.web_server import WebServer, local_web
from workers.execution import Delivery

LIMIT = 300
QUEUE_BYTES = 400_000


@pytest.fixture(scope="module")
def web(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    env = {
        "EMBED_BROKER_URL": redis_server.url,
        "EMBED_MODEL": "fake",
        "EMBED_QUEUE_LIMIT": str(LIMIT),
        "EMBED_QUEUE_BYTES": str(QUEUE_BYTES),
        "EMBED_MAX_TEXT_BYTES": "200000",
    }
    with local_web(tmp_path_factory.mktemp("web"), env) as server:
        yield server


class Morgue:
    """Makes documents fail, and reads what is left of them."""

    def __init__(self, broker: RedisServer, settings: Settings) -> None:
        self.client, self.settings = broker.client, settings

    def fail(
        self,
        *texts: str,
        name: str = "",
        code: str = "store_rejected",
        collection: str = "documents",
    ) -> str:
        """The id of a job of these texts, all of which have failed."""
        documents = [{"id": f"{name or text}"[:60], "text": text} for text in texts]
        job = submit(documents, collection=collection)
        choice = Options(collection)
        entries = read_roster(self.client, job.id, self.settings).entries
        outcomes = [
            Outcome(entry.index, entry.id, "failed", code=code, detail="why\x1b[2J", attempts=2)
            for entry in entries
        ]
        placed = [
            PlacedDocument(entry.index, entry.sequence, Document(entry.id, text, {"page": 7}))
            for entry, text in zip(entries, texts, strict=True)
        ]
        letters = {
            one.index: write_letter(job.id, one, choice, outcome)
            for one, outcome in zip(placed, outcomes, strict=True)
        }
        run(self.client, ledger().settle(job.id, outcomes, letters))
        self.client.delete(QUEUE)
        return job.id

    def letters(self) -> list[DeadLetter]:
        """Those that are there, newest first, and the count of their bytes is right."""
        found = list(read_letters(self.client, self.settings))
        counted = int(self.client.get("embedmill:dead:bytes") or 0)
        assert counted == sum(letter.size for letter in found)
        return found


@pytest.fixture
def morgue(broker: RedisServer, settings: Settings) -> Morgue:
    return Morgue(broker, settings)


def replay(client: httpx.Client, **body: Any) -> Mapping[str, Any]:
    response = client.post("/dead/replay", json=body)
    assert response.status_code == 202, response.text
    answer: Mapping[str, Any] = response.json()
    return answer


def occupy(client: httpx.Client, texts: int) -> str:
    body = {"texts": [f"text {number}" for number in range(texts)]}
    response = client.post("/embed", json=body)
    assert response.status_code == 202, response.text
    return str(response.json()["job_id"])


def test_a_list_shows_what_failed_and_why(client: httpx.Client, morgue: Morgue) -> None:
    job_id = morgue.fail("one\n\x1b[2Jtwo " + "x" * 500, name="d")
    (row,) = client.get("/dead").json()["letters"]
    assert (row["job_id"], row["index"], row["document_id"]) == (job_id, 0, "d")
    assert (row["code"], row["attempts"], row["collection"]) == ("store_rejected", 2, "documents")
    assert row["excerpt"].startswith("one [2Jtwo xxx")
    assert len(row["excerpt"]) < 210
    whole = client.get(f"/dead/{row['id']}").json()
    assert whole["text"] == "one\n\x1b[2Jtwo " + "x" * 500
    assert (whole["metadata"], whole["on_long"]) == ({"page": 7}, "chunk")


def test_pages_are_newest_first_and_meet_every_letter_once(
    client: httpx.Client, morgue: Morgue
) -> None:
    texts = [f"text {number}" for number in range(45)]
    morgue.fail(*texts)
    seen: list[str] = []
    page = client.get("/dead", params={"limit": 20}).json()
    morgue.fail("meanwhile")
    totals = [page["total"]]
    seen += [row["document_id"] for row in page["letters"]]
    while page["cursor"]:
        page = client.get("/dead", params={"limit": 20, "cursor": page["cursor"]}).json()
        totals.append(page["total"])
        seen += [row["document_id"] for row in page["letters"]]
    assert (seen, totals) == (texts[::-1], [45, 46, 46])


def test_a_page_is_bounded_in_bytes(client: httpx.Client, morgue: Morgue) -> None:
    for number in range(9):
        morgue.fail(f"{number}" * 150_000)
    page = client.get("/dead").json()
    sizes = [len(page["letters"])]
    while page["cursor"]:
        page = client.get("/dead", params={"cursor": page["cursor"]}).json()
        sizes.append(len(page["letters"]))
    assert sizes == [2, 2, 2, 2, 1]  # of 400,000 bytes, which is what the queue holds
    assert len(morgue.letters()) == 9


def test_a_list_of_one_code(client: httpx.Client, morgue: Morgue) -> None:
    morgue.fail("a", "b", code="text_too_long")
    morgue.fail("c")
    page = client.get("/dead", params={"code": "text_too_long"}).json()
    assert [row["document_id"] for row in page["letters"]] == ["b", "a"]
    assert page["total"] == 3


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/dead/1-1", None, 404, "letter_not_found"),
        ("GET", "/dead/1-18446744073709551616", None, 404, "letter_not_found"),
        ("GET", "/dead/+", None, 404, "letter_not_found"),
        ("DELETE", "/dead/1-1", None, 404, "letter_not_found"),
        ("DELETE", "/dead/0-0", None, 404, "letter_not_found"),
        ("GET", "/dead?cursor=-", None, 422, "cursor_invalid"),
        ("GET", "/dead?cursor=0-0", None, 422, "cursor_invalid"),
        ("GET", "/dead?limit=0", None, 422, "request_invalid"),
        ("POST", "/dead/replay", b"{", 400, "json_invalid"),
        ("POST", "/dead/replay", b"[]", 422, "request_invalid"),
        ("POST", "/dead/replay", b"{}", 422, "request_invalid"),
        ("POST", "/dead/replay", b'{"ids":[]}', 422, "request_invalid"),
        ("POST", "/dead/replay", b'{"all":false}', 422, "request_invalid"),
        ("POST", "/dead/replay", b'{"all":true,"code":"x"}', 422, "request_invalid"),
        ("POST", "/dead/replay", b'{"all":true,"cursor":"x"}', 422, "cursor_invalid"),
        ("POST", "/dead/replay", b'{"ids":["1-1"],"cursor":"1-1"}', 422, "request_invalid"),
        ("POST", "/dead/replay", b" " * 70_000, 413, "request_too_large"),
    ],
)
def test_nonsense_is_refused(
    client: httpx.Client, method: str, path: str, body: bytes | None, status: int, code: str
) -> None:
    response = client.request(method, path, content=body)
    assert (response.status_code, response.json()["code"]) == (status, code)


def test_a_replayed_document_is_a_new_job_with_its_old_number(
    client: httpx.Client, morgue: Morgue
) -> None:
    morgue.fail("a", "b")
    before = {letter.document_id: letter for letter in morgue.letters()}
    answer = replay(client, ids=[before["a"].id, before["a"].id])
    (job,) = answer["jobs"]
    assert (answer["replayed"], answer["refused"]) == (1, [])
    (entry,) = read_roster(morgue.client, job["job_id"], morgue.settings).entries
    assert (entry.id, entry.sequence, entry.ending) == ("a", before["a"].sequence, "open")
    assert [letter.document_id for letter in morgue.letters()] == ["b"]
    assert client.get("/queue").json()["outstanding"] == 1


def test_a_worker_writes_each_replayed_document_under_its_old_number(
    client: httpx.Client, morgue: Morgue
) -> None:
    """The text that was accepted later keeps the higher one, whichever is embedded last."""
    morgue.fail("older", name="same")
    morgue.fail("newer", name="same")
    morgue.fail("other")
    numbers = {letter.text: letter.sequence for letter in morgue.letters()}
    assert numbers["older"] < numbers["newer"]
    (job,) = replay(client, all=True)["jobs"]
    place = Coordinates(v=1, job=job["job_id"], start=0, count=3)
    claim = run(redis_client(), ledger().claim(place))
    (message,) = morgue.client.lrange(QUEUE, 0, -1)
    assert orjson.loads(message)["headers"]["embedmill"] == place
    texts = ["other", "newer", "older"]
    documents = [Document(text, text) for text in texts]
    placed = Delivery(place, documents, Options("documents")).placed(claim)
    assert {one.document.text: one.sequence for one in placed} == numbers


def test_a_full_queue_keeps_the_letters(client: httpx.Client, morgue: Morgue) -> None:
    morgue.fail("a", "b")
    job_id = occupy(client, LIMIT - 1)
    refused = client.post("/dead/replay", json={"all": True})
    assert (refused.status_code, refused.json()["code"]) == (429, "queue_full")
    assert "Retry-After" in refused.headers
    assert len(morgue.letters()) == 2
    client.delete(f"/jobs/{job_id}")
    assert replay(client, all=True)["replayed"] == 2
    assert morgue.letters() == []


def test_what_cannot_be_accepted_stays_and_says_why(client: httpx.Client, morgue: Morgue) -> None:
    morgue.fail("a")
    morgue.fail("b", collection="foreign")
    record_collection(morgue.client, "foreign", "another-model", 3)
    answer = replay(client, ids=["1-1", *(letter.id for letter in morgue.letters())])
    assert answer["replayed"] == 1
    assert [row["code"] for row in answer["refused"]] == ["letter_not_found", "model_mismatch"]
    assert [letter.document_id for letter in morgue.letters()] == ["b"]


def test_a_text_above_a_limit_that_has_changed_is_refused_alone(
    client: httpx.Client, morgue: Morgue
) -> None:
    morgue.fail("x" * 200_001, name="long")
    morgue.fail("short")
    answer = replay(client, all=True)
    assert (answer["replayed"], answer["refused"][0]["code"]) == (1, "text_too_large")
    assert [letter.document_id for letter in morgue.letters()] == ["long"]


def test_a_full_queue_in_the_middle_is_told(client: httpx.Client, morgue: Morgue) -> None:
    morgue.fail("a", "b")
    morgue.fail("c", collection="other")
    occupy(client, LIMIT - 2)
    answer = replay(client, all=True)
    assert answer["replayed"] in {1, 2}
    assert {row["code"] for row in answer["refused"]} == {"queue_full"}
    kept = [letter.id for letter in morgue.letters()]
    assert [row["id"] for row in answer["refused"]] == kept


def test_all_is_replayed_page_by_page(client: httpx.Client, morgue: Morgue) -> None:
    for number in range(5):
        morgue.fail(f"{number}" * 150_000)
    first = replay(client, all=True)
    assert (first["replayed"], len(morgue.letters())) == (2, 3)
    client.delete(f"/jobs/{first['jobs'][0]['job_id']}")
    second = replay(client, all=True, cursor=first["cursor"])
    client.delete(f"/jobs/{second['jobs'][0]['job_id']}")
    third = replay(client, all=True, cursor=second["cursor"])
    assert (third["replayed"], third["cursor"]) == (1, None)
    assert morgue.letters() == []


def test_letters_of_a_code_are_replayed_and_purged(client: httpx.Client, morgue: Morgue) -> None:
    morgue.fail("a", "b", code="text_too_long")
    morgue.fail("c", "d")
    assert replay(client, code="text_too_long")["replayed"] == 2
    assert client.delete("/dead", params={"code": "none"}).json() == {"purged": 0}
    assert client.delete("/dead", params={"code": "store_rejected"}).json() == {"purged": 2}
    assert morgue.letters() == []


def test_one_or_all_letters_are_purged(client: httpx.Client, morgue: Morgue) -> None:
    morgue.fail("a", "b", "c")
    newest = morgue.letters()[0]
    assert client.delete(f"/dead/{newest.id}").json() == {"purged": 1}
    assert client.delete(f"/dead/{newest.id}").status_code == 404
    assert [letter.document_id for letter in morgue.letters()] == ["b", "a"]
    assert client.delete("/dead").json() == {"purged": 2}
    assert morgue.client.keys("embedmill:dead*") in ([], [b"embedmill:dead"])
    morgue.fail("d")
    assert morgue.letters()[0].id > newest.id


def test_a_letter_of_before_numbers_were_kept_loses_to_any_other(
    client: httpx.Client, morgue: Morgue
) -> None:
    morgue.fail("old")
    entries: Any = morgue.client.xrange("embedmill:dead")
    row = orjson.loads(entries[0][1][b"letter"])
    del row["sequence"]
    client.delete("/dead")
    morgue.client.set("embedmill:dead:bytes", len(orjson.dumps(row)))
    morgue.client.xadd("embedmill:dead", {"letter": orjson.dumps(row)})
    (job,) = replay(client, all=True)["jobs"]
    (entry,) = read_roster(morgue.client, job["job_id"], morgue.settings).entries
    assert entry.sequence == 0
    assert morgue.letters() == []


def test_a_full_redis_replays_nothing_and_can_be_purged(
    client: httpx.Client, morgue: Morgue
) -> None:
    morgue.fail("a", "b", "c")
    ids = [letter.id for letter in morgue.letters()]
    morgue.client.config_set("maxmemory", 1)
    try:
        refused = client.post("/dead/replay", json={"all": True})
        assert (refused.status_code, refused.json()["code"]) == (503, "broker_down")
        assert client.delete(f"/dead/{ids[1]}").json() == {"purged": 1}
        assert [letter.id for letter in morgue.letters()] == [ids[0], ids[2]]
        assert client.delete("/dead").json() == {"purged": 2}
    finally:
        morgue.client.config_set("maxmemory", 0)
    assert morgue.letters() == []


@pytest.mark.parametrize("purged", [True, False])
def test_a_letter_that_went_meanwhile_is_not_replayed(morgue: Morgue, purged: bool) -> None:
    """Purged, or replayed by another; the jobs of the same request go on."""
    morgue.fail("a", "b")
    morgue.fail("c", collection="other")
    letters = morgue.letters()
    packed = pack_letters(app, letters, morgue.settings)
    gone = next(letter for letter in letters if letter.document_id == "a")
    if purged:
        run(morgue.client, discard_letters(morgue.settings, [gone]))
    else:
        again = pack_letters(app, [gone], morgue.settings).submissions
        run(morgue.client, ledger().accept_all(again))
    answers = run(morgue.client, ledger().accept_all(packed.submissions))
    refused = {
        s.collection: isinstance(a, LetterNotFound)
        for s, a in zip(packed.submissions, answers, strict=True)
    }
    assert refused == {"documents": True, "other": False}
    assert [letter.document_id for letter in morgue.letters()] == ["b"]
