"""`embedmill dead` with a stand-in for the web."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from click.testing import CliRunner, Result

from compose import dead
from compose.cli import main
from compose.errors import WebBusy, WebRefused
from compose.web_client import WebClient
from webapp.schemas import LetterList, LetterRow, Purged, Replayed


class StandIn(WebClient):
    """Remembers what it is asked, and gives the answers that it was given."""

    def __init__(self) -> None:
        super().__init__("http://stand-in")
        self.asked: list[Mapping[str, object]] = []
        self.answers: list[Replayed | Exception] = []
        self.pages: dict[str | None, LetterList] = {}
        self.purged: list[str | None] = []

    def letters(self, limit: int, cursor: str | None, code: str | None) -> LetterList:
        return self.pages[cursor]

    def replay(self, wanted: Mapping[str, object]) -> Replayed:
        self.asked.append(wanted)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def purge_letter(self, letter_id: str) -> Purged:
        if letter_id == "absent":
            raise WebRefused("no such letter", status=404, code="letter_not_found")
        self.purged.append(letter_id)
        return Purged(purged=1)

    def purge_letters(self, code: str | None) -> Purged:
        self.purged.append(code)
        return Purged(purged=7)


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    web = StandIn()
    monkeypatch.setattr(dead, "_connect", lambda _url: web)
    return web


def invoke(*arguments: str, answer: str = "") -> Result:
    return CliRunner().invoke(main, ["dead", *arguments], input=answer)


def replayed(jobs: int = 0, cursor: str | None = None, **refused: str) -> Replayed:
    rows: list[dict[str, Any]] = [
        {"id": name, "code": code, "detail": "why"} for name, code in refused.items()
    ]
    job = {"job_id": "j", "collection": "documents", "accepted": jobs}
    return Replayed.model_validate(
        {"replayed": jobs, "jobs": [job] * bool(jobs), "refused": rows, "cursor": cursor}
    )


def letter(name: str) -> LetterRow:
    return LetterRow(
        id=name,
        at=0,
        job_id="job",
        index=0,
        document_id=f"\x1b[2J{name}",
        collection="documents",
        code="text_too_long",
        detail="a\x07detail",
        attempts=1,
        excerpt="text",
    )


def test_a_list_reads_pages_until_it_has_enough_and_sends_no_commands(web: StandIn) -> None:
    web.pages = {
        None: LetterList(letters=[letter("a")], total=9, cursor="1"),
        "1": LetterList(letters=[], total=9, cursor="2"),
        "2": LetterList(letters=[letter("b"), letter("c")], total=9, cursor="3"),
    }
    result = invoke("list", "--limit", "2")
    assert "document [2Ja of job job" in result.output
    assert "adetail" in result.output
    assert "document [2Jb" in result.output
    assert "[2Jc" not in result.output
    assert result.output.endswith("2 of 9 dead letters.\n")


def test_a_replay_goes_from_page_to_page(web: StandIn) -> None:
    web.answers = [replayed(2, cursor="7-0"), replayed(1)]
    result = invoke("replay", "--all")
    assert web.asked == [{"all": True}, {"all": True, "cursor": "7-0"}]
    assert result.output.endswith("3 documents replayed.\n")
    assert result.exit_code == 0


def test_a_replay_waits_for_room_and_sends_what_found_none(web: StandIn) -> None:
    busy = WebBusy("full", retry_after_s=0)
    web.answers = [busy, replayed(2, cursor="7-0", a="queue_full"), busy, replayed(1), replayed()]
    result = invoke("replay", "--code", "x", "--json")
    assert [dict(wanted) for wanted in web.asked[2:]] == [
        {"ids": ["a"]},
        {"ids": ["a"]},
        {"code": "x", "cursor": "7-0"},
    ]
    answer = json.loads(result.stdout)
    assert (answer["replayed"], answer["refused"], result.exit_code) == (3, [], 0)


def test_what_is_refused_is_said_and_is_status_1(web: StandIn) -> None:
    web.answers = [replayed(1, a="letter_not_found")]
    result = invoke("replay", "a", "b")
    assert web.asked == [{"ids": ("a", "b")}]
    assert (result.stderr, result.exit_code) == ("a stays: why\n", 1)


def test_purging_more_than_what_is_named_asks_first(web: StandIn) -> None:
    assert invoke("purge", "--all", answer="n\n").exit_code == 1
    assert web.purged == []
    assert invoke("purge", "--all", answer="y\n").exit_code == 0
    assert invoke("purge", "--code", "x", "--yes").exit_code == 0
    assert invoke("purge", "a").exit_code == 0
    assert web.purged == [None, "x", "a"]
    result = invoke("purge", "absent", "b", "--json")
    assert json.loads(result.stdout) == {"purged": 1, "absent": ["absent"]}
    assert result.exit_code == 1


@pytest.mark.parametrize("arguments", [[], ["a", "--all"], ["--all", "--code", "x"]])
def test_which_letters_is_said_in_one_way(arguments: list[str], web: StandIn) -> None:
    for verb in ("replay", "purge"):
        assert invoke(verb, *arguments).exit_code == 2
    assert not web.asked
    assert not web.purged
