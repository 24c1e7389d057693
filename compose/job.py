"""The verb `embedmill job`: one job as a table; only `compose.cli` imports it."""

import time
from datetime import datetime
from threading import Event

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from compose.addresses import find_web
from compose.patience import Patience
from compose.plain import strip_controls
from compose.progress import format_duration
from compose.web_client import WebClient
from tasks.settings import get_settings
from webapp.schemas import JobOut

POLL_S = 0.5
LISTED_ERRORS = 10


def run(job_id: str, url: str | None, *, watch: bool, cancel: bool) -> None:
    """Show it, once or until it is settled. Raises JobNotFound, WebDown, WebRefused."""
    console = Console()
    with WebClient(find_web(get_settings(), url)) as client:
        job = client.cancel(job_id) if cancel else client.job(job_id)
        if watch and job.state == "open":
            job = _watch(client, job, console)
    console.print(describe(job))


def _watch(client: WebClient, job: JobOut, console: Console) -> JobOut:
    patience = Patience(Event(), lambda text: click.echo(text, err=True))
    job_id = job.job_id
    with Live(describe(job), console=console, transient=True) as live:
        while job.state == "open":
            time.sleep(POLL_S)
            job = patience.call(lambda: client.job(job_id))
            live.update(describe(job))
    return job


def describe(job: JobOut) -> Table:
    """Its numbers, one a line, and the first errors."""
    table = Table(show_header=False, box=None)
    table.add_column(style="bold")
    for name, value in _rows(job):
        table.add_row(name, Text(value))
    for error in job.errors[:LISTED_ERRORS]:
        line = strip_controls(f"document {error.index} ({error.id}): {error.detail}")
        table.add_row("error", Text(line))  # as it is: no markup in texts of others
    if (unlisted := job.failed - min(len(job.errors), LISTED_ERRORS)) > 0:
        table.add_row("", f"and {unlisted:,} more")
    return table


def _rows(job: JobOut) -> list[tuple[str, str]]:
    counts = (
        "accepted",
        "done",
        "failed",
        "cancelled",
        "unchanged",
        "chunked",
        "truncated",
        "points",
    )
    rows = [("job", job.job_id), ("state", job.state), ("collection", job.collection)]
    rows += [("model", job.model or "not known yet")]
    rows += [(name, f"{getattr(job, name):,}") for name in counts]
    rows.append(("rate", f"{job.rate_per_s:,.1f} texts/s"))
    if job.state == "open":
        left = "not known yet" if job.eta_s is None else format_duration(job.eta_s)
        rows.append(("time left", left))
    rows.append(("created", format_time(job.created_at)))
    if job.settled_at is not None:
        rows.append(("settled", format_time(job.settled_at)))
    return rows


def format_time(unix_s: float) -> str:
    """In this machine's time zone."""
    return datetime.fromtimestamp(unix_s).astimezone().isoformat(sep=" ", timespec="seconds")
