"""The verb `embedmill ingest`, and ingestion as the demo uses it; only `compose` imports it.

Reads, sends and follows at the same time, in constant memory.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Event

import click
from rich.console import Console

from compose.addresses import find_web
from compose.errors import IngestStopped, InputError, Interrupted, WebDown
from compose.following import Follower, Tally
from compose.interruption import EXIT_INTERRUPTED
from compose.items import Item, batches
from compose.journal import Journal, journal_path
from compose.patience import Patience
from compose.progress import Display, Reading, make_display
from compose.reading import Sources
from compose.selection import STDIN
from compose.sending import TICK_S, Sender
from compose.tables import Columns
from compose.web_client import WebClient
from tasks.errors import EmbedError
from tasks.settings import get_settings

LOOK_INTERVAL_S = 0.5
RESUME = "To send the rest: the same command with --resume"
MEND = "To send the rest: mend it and run again; what is stored already is not embedded again"
"""The same input would end at the same place, and a mended file is another one to the journal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `embedmill ingest` can be told; unset: the web's own defaults."""

    collection: str | None = None
    on_long: str | None = None
    batch: int = 64
    wait: bool = True

    @property
    def fields(self) -> dict[str, str]:
        """Of every request."""
        named = {"collection": self.collection, "on_long": self.on_long}
        return {name: value for name, value in named.items() if value is not None}


class Ingestion:
    """One run from items to settled jobs."""

    def __init__(
        self,
        client: WebClient,
        options: Options,
        display: Display,
        *,
        share_read: Callable[[], float | None] = lambda: None,
        check: Callable[[], None] = lambda: None,
        journal: Journal | None = None,
    ) -> None:
        """`share_read` says how much of the input has been read, from 0 to 1; `check` is called
        again and again and may raise; `journal` has what is not to be sent any more."""
        self._client = client
        self._options = options
        self._display = display
        self._share_read = share_read
        self._check = check
        self._journal = journal or Journal()
        self._stop = Event()
        self._patience = Patience(self._stop, display.say)
        self._follower = Follower(client, self._patience)
        self._sender: Sender | None = None
        self._began_s = self._looked_s = time.monotonic()
        self._all_read = self._all_accepted = False

    @property
    def tally(self) -> Tally:
        return self._follower.tally

    @property
    def waits(self) -> bool:
        """Whether it ends when all is settled."""
        return self._options.wait

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began_s

    def run(self, items: Iterable[Item]) -> None:
        """Until all is accepted and, if so asked, settled.

        Raises IngestStopped, which tells what was accepted before; Interrupted passes.
        """
        try:
            self._send(items)
            while self._options.wait and self._follower.any_open:
                self._tick()
                self._stop.wait(TICK_S)
        except Interrupted:
            raise
        except InputError as error:
            raise IngestStopped(f"{error.detail}\n{self._describe(MEND)}") from error
        except EmbedError as error:
            raise IngestStopped(f"{error.detail}\n{self.describe_accepted()}") from error

    def describe_accepted(self) -> str:
        """What was accepted, and how to follow it and to send the rest."""
        unsent = self._journal.resumable and not self._all_accepted
        return self._describe(RESUME if unsent else "")

    def _describe(self, rest: str) -> str:
        """`rest` says how the rest is sent."""
        tally = self.tally
        if not tally.accepted:
            return "Nothing was accepted."
        lines = [
            f"Accepted and left to the workers: {tally.accepted:,} texts, jobs: {tally.jobs:,}.",
            f"To follow the last: embedmill job {self._follower.last_job_id} --watch",
        ]
        return "\n".join([*lines, rest] if rest else lines)

    def _send(self, items: Iterable[Item]) -> None:
        sender = Sender(
            self._client,
            self._patience,
            self._options.fields,
            key=self._journal.key,
            stop=self._stop,
            tick=self._tick,
        )
        try:
            with sender:
                self._sender = sender
                for batch in batches(self._unsent(items), self._options.batch):
                    sender.send(batch)
                    self._tick()
                self._all_read = True
                sender.finish()
        finally:
            self._note_accepted()
            self._journal.save(now=True)
        self._all_accepted = True
        self._journal.remove()

    def _unsent(self, items: Iterable[Item]) -> Iterator[Item]:
        for number, item in enumerate(items):
            if number not in self._journal:
                yield replace(item, number=number)

    def _tick(self) -> None:
        self._check()
        self._note_accepted()
        now_s = time.monotonic()
        if self._options.wait and now_s - self._looked_s >= LOOK_INTERVAL_S:
            self._follower.look()
            self._looked_s = time.monotonic()
        self._display.show(self._reading())

    def _note_accepted(self) -> None:
        assert self._sender is not None
        for receipt, batch in self._sender.take_accepted():
            if self._options.wait:
                self._follower.add(receipt, batch)
            else:
                self._follower.count(receipt)
            self._journal.note(batch)
        self._journal.save()

    def _reading(self) -> Reading:
        follower = self._follower
        return Reading(
            self.tally.accepted, follower.done, follower.settled, self._total(), self.seconds
        )

    def _total(self) -> int | None:
        accepted, before = self.tally.accepted, self._journal.before
        share = 1.0 if self._all_read else self._share_read()
        return round((accepted + before) / share) - before if share else None


def run(
    given: Sequence[str], url: str | None, options: Options, columns: Columns, *, resume: bool
) -> None:
    """The verb: exits with 1 when a document failed, with 130 after Ctrl-C."""
    sources = Sources(given, columns)
    web_url = find_web(get_settings(), url)
    said = {"url": web_url, **options.fields, **asdict(columns)}
    journal = _open_journal(sources, said, resume=resume)
    with WebClient(web_url) as client, make_display(Console(stderr=True)) as display:
        greet(client, display)
        for note in filter(None, (sources.skipped, _describe_journal(journal, resume=resume))):
            display.say(f"Note: {note}.")
        ingestion = Ingestion(
            client, options, display, share_read=lambda: sources.share_read, journal=journal
        )
        try:
            ingestion.run(sources)
        except KeyboardInterrupt:
            display.say(f"Interrupted. {ingestion.describe_accepted()}")
            sys.exit(EXIT_INTERRUPTED)
    _report(ingestion, sources, given, journal.before)


def _open_journal(sources: Sources, said: dict[str, str | None], *, resume: bool) -> Journal:
    """What comes from a pipe cannot be read again."""
    if all(Path(name).is_file() for name in sources.names):
        path = journal_path(get_settings().cache_dir, sources.names, said)
        return Journal(path, resume=resume)
    if resume:
        raise InputError("--resume needs files: what comes from a pipe cannot be read again")
    return Journal()


def _describe_journal(journal: Journal, *, resume: bool) -> str:
    if resume and journal.before:
        return f"going on after {journal.before:,} texts that an earlier run has sent"
    if resume:
        return "there is nothing to go on with, so this begins at the beginning"
    if journal.found:
        return (
            f"an earlier run with these files sent {journal.found:,} texts and was interrupted; "
            "this one begins at the beginning, --resume would have gone on"
        )
    return ""


def _report(ingestion: Ingestion, sources: Sources, given: Sequence[str], before: int) -> None:
    if sources.rows_without_text:
        click.echo(f"Rows without a text, passed over: {sources.rows_without_text:,}")
    if not ingestion.tally.accepted and before:
        click.echo("An earlier run has sent all of it.")
    elif not ingestion.tally.accepted:
        names = ", ".join("standard input" if name == STDIN else name for name in given)
        click.echo(f"There is no text in {names}: nothing was sent.")
    elif not ingestion.waits:
        click.echo(ingestion.describe_accepted())
    else:
        click.echo(summarize(ingestion.tally, ingestion.seconds, before=before))
        sys.exit(1 if ingestion.tally.failed + ingestion.tally.lost else 0)


def greet(client: WebClient, display: Display) -> None:
    """See that the web is there, and tell when nobody would do the work. Raises WebDown."""
    try:
        readiness = client.readiness()
    except WebDown as error:
        raise WebDown(
            f"{error.detail}; start it with `embedmill up`, or say where it is with --url"
        ) from error
    for trouble in readiness.troubles:
        display.say(f"Note: {trouble.detail}.")


def summarize(tally: Tally, seconds: float, *, before: int = 0) -> str:
    """What became of the texts, and the first failures; `before` were sent by earlier runs."""
    counts = {
        "sent before": before,
        "accepted": tally.accepted,
        "done": tally.done,
        "new": tally.done - tally.unchanged if tally.unchanged else 0,
        "unchanged": tally.unchanged,
        "failed": tally.failed,
        "cancelled": tally.cancelled,
        "lost": tally.lost,
        "chunked": tally.chunked,
        "truncated": tally.truncated,
        "points written": tally.points,
    }
    always = {"accepted", "done", "failed", "points written"}
    shown = [f"{name} {count:,}" for name, count in counts.items() if count or name in always]
    rate = tally.settled / seconds if seconds else 0.0
    lines = [f"{', '.join(shown)}: {rate:,.0f} texts/s, {seconds:.1f} s"]
    lines += [f"  {failure.place}: {failure.detail} ({failure.code})" for failure in tally.failures]
    if (unlisted := tally.failed - len(tally.failures)) > 0:
        lines.append(f"  and {unlisted:,} more")
    return "\n".join(lines)
