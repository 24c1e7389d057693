"""The verbs of `embedmill dead`: dead letters, over the web; only `compose.cli` imports it."""

import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from threading import Event

import click
import orjson
from pydantic import BaseModel

from compose.addresses import find_web
from compose.errors import WebRefused
from compose.job import format_time
from compose.patience import Patience
from compose.plain import strip_controls
from compose.web_client import WebClient
from tasks.errors import BrokerDown, LetterNotFound, QueueFull
from tasks.letters import PAGE_LETTERS
from tasks.settings import get_settings
from webapp.schemas import LetterOut, LetterRow, RefusedLetter, Replayed, ReplayedJob

_LATER = frozenset({QueueFull.default_code, BrokerDown.default_code})


def list_letters(url: str | None, limit: int, code: str | None, *, as_json: bool) -> None:
    """The newest letters. Raises WebDown, WebRefused."""
    with _connect(url) as client:
        total = client.letters(1, None, None).total
        rows = list(islice(_read(client, limit, code), limit))
    if as_json:
        _echo_json({"total": total, "letters": [row.model_dump() for row in rows]})
        return
    for row in rows:
        click.echo("\n".join(map(strip_controls, _lines(row))))
    click.echo(f"{len(rows):,} of {total:,} dead letters.")


def show(letter_id: str, url: str | None, *, as_json: bool) -> None:
    """One letter whole. Raises WebDown, WebRefused."""
    with _connect(url) as client:
        letter = client.letter(letter_id)
    if as_json:
        _echo_json(letter.model_dump())
        return
    for line in (*_facts(letter), "", *letter.text.splitlines()):
        click.echo(strip_controls(line))


def replay(ids: Sequence[str], code: str | None, url: str | None, *, as_json: bool) -> None:
    """Accept letters anew: these, or those of a code, or all; waits while the queue is full.

    Exits with 1 when some are refused. Raises WebDown, WebRefused.
    """
    jobs: list[ReplayedJob] = []
    refused: list[RefusedLetter] = []
    with _connect(url) as client:
        for answer in _replay(client, _requests(ids, code)):
            jobs += answer.jobs
            refused += answer.refused
            if not as_json:
                _show_replayed(answer)
    replayed = sum(job.accepted for job in jobs)
    if as_json:
        rows: dict[str, Sequence[BaseModel]] = {"jobs": jobs, "refused": refused}
        named = {name: [row.model_dump() for row in found] for name, found in rows.items()}
        _echo_json({"replayed": replayed, **named})
    else:
        click.echo(f"{replayed:,} documents replayed.")
    sys.exit(1 if refused else 0)


def purge(ids: Sequence[str], code: str | None, url: str | None, *, as_json: bool) -> None:
    """Remove letters: these, or those of a code, or all. Exits with 1 when one was not there.

    Raises WebDown, WebRefused.
    """
    absent: list[str] = []
    with _connect(url) as client:
        purged = 0 if ids else client.purge_letters(code).purged
        for letter_id in ids:
            try:
                purged += client.purge_letter(letter_id).purged
            except WebRefused as error:
                if error.code != LetterNotFound.default_code:
                    raise
                click.echo(error.detail, err=True)
                absent.append(letter_id)
    if as_json:
        _echo_json({"purged": purged, "absent": absent})
    else:
        click.echo(f"{purged:,} dead letters purged.")
    sys.exit(1 if absent else 0)


def _connect(url: str | None) -> WebClient:
    return WebClient(find_web(get_settings(), url))


def _read(client: WebClient, limit: int, code: str | None) -> Iterator[LetterRow]:
    size = min(limit, PAGE_LETTERS) if code is None else PAGE_LETTERS
    page = client.letters(size, None, code)
    yield from page.letters
    while page.cursor:
        page = client.letters(size, page.cursor, code)
        yield from page.letters


def _requests(ids: Sequence[str], code: str | None) -> list[dict[str, object]]:
    if ids:
        starts = range(0, len(ids), PAGE_LETTERS)
        return [{"ids": ids[start : start + PAGE_LETTERS]} for start in starts]
    return [{"all": True} if code is None else {"code": code}]


def _replay(client: WebClient, requests: Sequence[Mapping[str, object]]) -> Iterator[Replayed]:
    """The answers, until nothing is left that only has to wait."""
    patience = Patience(Event(), lambda text: click.echo(text, err=True))
    waiting = deque(requests)
    while waiting:
        wanted = waiting.popleft()
        answer = patience.call(partial(client.replay, wanted))
        later = [letter.id for letter in answer.refused if letter.code in _LATER]
        if answer.cursor:
            waiting.appendleft({**wanted, "cursor": answer.cursor})
        if later:
            waiting.appendleft({"ids": later})
        refused = [letter for letter in answer.refused if letter.code not in _LATER]
        yield answer.model_copy(update={"refused": refused})


def _show_replayed(answer: Replayed) -> None:
    for job in answer.jobs:
        click.echo(f"job {job.job_id} in {job.collection}: {job.accepted:,} accepted")
    for letter in answer.refused:
        click.echo(strip_controls(f"{letter.id} stays: {letter.detail}"), err=True)


def _lines(row: LetterRow) -> list[str]:
    return [
        f"{row.id}  {format_time(row.at)}  {row.code}, tries: {row.attempts}",
        f"    document {row.document_id} of job {row.job_id} in {row.collection}",
        f"    {row.detail}",
        f"    {row.excerpt}",
    ]


def _facts(letter: LetterOut) -> Iterator[str]:
    facts = letter.model_dump(exclude={"text", "excerpt", "at", "metadata"})
    facts |= {"when": format_time(letter.at), "metadata": orjson.dumps(letter.metadata).decode()}
    width = max(map(len, facts))
    for name, value in facts.items():
        yield f"{name:<{width}}  {value}"


def _echo_json(value: object) -> None:
    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())
