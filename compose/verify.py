"""The verb `embedmill verify`: the ledger, the vector store and the dead letters, compared document
by document; only `compose.cli` imports it.
"""

import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import click
import orjson
import redis
from qdrant_client import QdrantClient
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from compose.addresses import find_services
from compose.search import TIMEOUT_S, store_errors
from tasks.broker import connect
from tasks.letters import read_letters
from tasks.messages import point_id
from tasks.roster import Entry, Roster, find_deletions, read_roster
from tasks.settings import Settings, get_settings
from workers.audit import Audit
from workers.qdrant import read_address

PAGE_POINTS = 256
LISTED = 50
KEPT_ERRORS = 100
FIELDS = ["document_id", "sequence", "chunks"]

Payload = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """What is not as the ledger says; `index` and `id` are empty where it is the job's count."""

    index: int | None
    id: str
    ending: str
    detail: str


class Store:
    """The points of one collection, by their ids."""

    def __init__(self, client: QdrantClient, url: str, collection: str) -> None:
        self._client, self._url, self._collection = client, url, collection

    def read(self, places: Collection[tuple[str, int]]) -> dict[tuple[str, int], Payload]:
        """The payloads of those points, by document id and chunk, that exist.

        Raises StoreDown, StoreRejected.
        """
        names = {point_id(self._collection, *place): place for place in places}
        found: dict[tuple[str, int], Payload] = {}
        with store_errors(self._url):
            if not self._client.collection_exists(self._collection):
                return found
            left = iter(names)
            while page := list(islice(left, PAGE_POINTS)):
                for record in self._client.retrieve(self._collection, page, with_payload=FIELDS):
                    found[names[str(record.id)]] = record.payload or {}
        return found


def run(job_id: str, *, as_json: bool) -> None:
    """The verb: exits with 1 when there are differences.

    Raises JobNotFound, BrokerDown, StoreDown, StoreRejected.
    """
    settings = find_services(get_settings())
    with connect(settings) as client:
        roster = read_roster(client, job_id, settings)
        with closing(_connect_store(settings)) as qdrant:
            store = Store(qdrant, settings.qdrant_url, roster.collection)
            differences = list(compare(roster, store, client, settings))
    if as_json:
        click.echo(_as_json(roster, differences))
    else:
        _show(roster, differences)
    sys.exit(1 if differences else 0)


def compare(
    roster: Roster, store: Store, client: redis.Redis, settings: Settings
) -> Iterator[Difference]:
    """Everything that differs, the job's counts first, then by kind of ending."""
    yield from check_counts(roster)
    by_ending: dict[str, list[Entry]] = {"open": [], "done": [], "failed": [], "cancelled": []}
    for entry in roster.entries:
        by_ending[entry.ending].append(entry)
    if roster.deletes:
        yield from _check_deleted(by_ending["done"], store)
    else:
        yield from _check_done(by_ending["done"], store, _Deletions(client, roster, settings))
    if by_ending["failed"]:
        letters = read_letters(client, settings)
        own = {letter.index for letter in letters if letter.job_id == roster.job_id}
        yield from check_failed(roster, own)
    if by_ending["open"]:
        gone = Audit(settings).find_missing(roster.job_id)
        yield from (
            _differ(entry, "no message carries it any more")
            for entry in by_ending["open"]
            if entry.index in gone
        )


def check_counts(roster: Roster) -> Iterator[Difference]:
    """The job's counters against its documents."""
    counted = Counter(entry.ending for entry in roster.entries)
    if len(roster.entries) != roster.accepted:
        detail = f"{roster.accepted} documents were accepted, {len(roster.entries)} are listed"
        yield Difference(None, "", "accepted", detail)
    for ending, count in roster.counts.items():
        if counted[ending] != count:
            detail = f"the job counts {count}, its documents are {counted[ending]}"
            yield Difference(None, "", ending, detail)


def check_failed(roster: Roster, lettered: Collection[int]) -> Iterator[Difference]:
    """A failed document has an error in the job, which keeps the first 100, or a dead letter."""
    told = {int(error["index"]) for error in roster.errors}
    if len(roster.errors) >= KEPT_ERRORS:
        return
    for entry in roster.entries:
        if entry.ending == "failed" and entry.index not in told and entry.index not in lettered:
            yield _differ(entry, "neither an error nor a dead letter says why")


class _Deletions:
    """Later deletions of a collection's documents; looked for when something is missing."""

    def __init__(self, client: redis.Redis, roster: Roster, settings: Settings) -> None:
        self._client, self._collection, self._settings = client, roster.collection, settings
        self._found: Mapping[str, int] | None = None

    def explain(self, entry: Entry, first: Payload | None) -> bool:
        """Whether it was deleted after this acceptance, and its first chunk, if there is one, is
        newer than that."""
        if self._found is None:
            self._found = find_deletions(self._client, self._collection, self._settings)
        number = self._found.get(entry.id, 0)
        stored = number if first is None else int(first.get("sequence", 0))
        return stored >= number > entry.sequence


def _check_deleted(entries: Sequence[Entry], store: Store) -> Iterator[Difference]:
    firsts = store.read({(entry.id, 0) for entry in entries})
    for entry in entries:
        number = int(firsts.get((entry.id, 0), {}).get("sequence", entry.sequence))
        if number < entry.sequence:
            yield _differ(entry, f"the store still has it (number {number})")


def _check_done(
    entries: Sequence[Entry], store: Store, deletions: _Deletions
) -> Iterator[Difference]:
    firsts = store.read({(entry.id, 0) for entry in entries})
    others = store.read(
        {
            (entry.id, chunk)
            for entry in entries
            if (entry.id, 0) in firsts
            for chunk in range(1, int(firsts[entry.id, 0].get("chunks", 1)))
        }
    )
    points = firsts | others
    for entry in entries:
        detail = describe_points(entry, points)
        if detail and not deletions.explain(entry, firsts.get((entry.id, 0))):
            yield _differ(entry, detail)


def describe_points(entry: Entry, points: Mapping[tuple[str, int], Payload]) -> str:
    """What is wrong with the points of a done document; empty if nothing is.

    Another text of the same id may have been accepted later: its number is higher. An unchanged
    document is there under the number of an earlier acceptance.
    """
    first = points.get((entry.id, 0))
    if first is None:
        return "its point is not in the store"
    chunks = int(first.get("chunks", 1))
    for chunk in range(chunks):
        point = points.get((entry.id, chunk))
        if point is None:
            return f"chunk {chunk + 1} of {chunks} is not in the store"
        if point.get("document_id") != entry.id:
            return f"its point belongs to {point.get('document_id')!r}"
        if int(point.get("sequence", 0)) < entry.sequence and not entry.unchanged:
            return (
                f"the store has a text that was accepted earlier (number {point.get('sequence')}, "
                f"not {entry.sequence})"
            )
    return ""


def _differ(entry: Entry, detail: str) -> Difference:
    return Difference(entry.index, entry.id, entry.ending, detail)


def _connect_store(settings: Settings) -> QdrantClient:
    return read_address(settings.qdrant_url).connect(TIMEOUT_S)


def _show(roster: Roster, differences: Sequence[Difference]) -> None:
    counts = ", ".join(f"{count:,} {ending}" for ending, count in roster.counts.items())
    click.echo(
        f"job {roster.job_id} in {roster.collection}: {roster.accepted:,} accepted, {counts}"
    )
    if not differences:
        click.echo("No differences.")
        return
    table = Table("index", "document", "ledger", "difference")
    for row in differences[:LISTED]:
        index = "" if row.index is None else str(row.index)
        table.add_row(index, escape(row.id), row.ending, escape(row.detail))
    Console().print(table)
    click.echo(f"Differences: {len(differences):,}.")


def _as_json(roster: Roster, differences: Sequence[Difference]) -> str:
    fields: dict[str, Any] = {
        "job_id": roster.job_id,
        "collection": roster.collection,
        "accepted": roster.accepted,
        **{str(ending): count for ending, count in roster.counts.items()},
        "differences": [asdict(row) for row in differences],
    }
    return orjson.dumps(fields, option=orjson.OPT_INDENT_2).decode()
