"""The command `embedmill`: its verbs, each in a module of its own, imported when it is called."""

import os
import re
import sys
from pathlib import Path
from typing import Any

import click

from compose.service import NAMES

DIRECTORY = click.Path(path_type=Path, file_okay=False)
PORT = click.IntRange(0, 65535)
COUNT = click.IntRange(1, 512)
SECONDS = click.FloatRange(0, 86_400, min_open=True)
FILE = click.Path(exists=True, dir_okay=False, readable=True, allow_dash=True)
OUTPUT = click.Path(path_type=Path, dir_okay=False, writable=True)
WEB_URL = click.option("--url", help="Of the web. [stack.json, else http://127.0.0.1:8080]")
COLLECTION = click.option("--collection", help="[EMBED_COLLECTION]")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="For programs.")


def parse_duration(_ctx: click.Context, _param: click.Parameter, value: str) -> float:
    """Seconds, of `90`, `90s`, `10m` or `1h`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", value.strip())
    seconds = float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]] if found else 0.0
    if seconds <= 0:
        raise click.BadParameter(f"{value!r} is no duration such as 90s, 10m or 1h")
    return seconds


def parse_names(_ctx: click.Context, _param: click.Parameter, value: str) -> frozenset[str]:
    """Services by name, with commas between them."""
    names = frozenset(value.replace(",", " ").split())
    if unknown := sorted(names - set(NAMES)):
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(NAMES)}")
    return names


def choose_letters(
    ids: tuple[str, ...], everything: bool, code: str | None
) -> tuple[tuple[str, ...], str | None]:
    """Exactly one of ids, --all and --code."""
    if sum((bool(ids), everything, code is not None)) != 1:
        raise click.UsageError("give ids of dead letters, or --all, or --code CODE")
    return ids, code


def choosing_letters(command: Any) -> Any:
    """A command with the options that `choose_letters` reads."""
    command = click.option("--code", help="All that failed with it.")(command)
    command = click.option("--all", "everything", is_flag=True)(command)
    return click.argument("ids", nargs=-1, metavar="[ID...]")(command)


class Verbs(click.Group):
    """Our errors end as one sentence on standard error and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        from tasks.errors import EmbedError

        try:
            return super().invoke(ctx)
        except EmbedError as error:
            raise click.ClickException(error.detail) from error


@click.group(cls=Verbs)
def main() -> None:
    """Turn texts into vectors in Qdrant, on your own machines."""


@main.command()
@click.option("--data-dir", type=DIRECTORY, help="Files of Redis and Qdrant. [EMBED_DATA_DIR]")
@click.option(
    "--port", type=PORT, default=8080, show_default=True, help="Of the web; 0: free ports for all."
)
@click.option("--web-workers", type=COUNT, help="Web processes. [EMBED_WEB_WORKERS]")
@click.option("--concurrency", type=COUNT, help="The worker's pool children. [EMBED_CONCURRENCY]")
@click.option(
    "--without", callback=parse_names, default="", help="Names to leave out, e.g. worker,flower."
)
def up(**options: Any) -> None:
    """Start everything here, without Docker, and stop it with Ctrl-C."""
    from compose.services import Options
    from compose.up import run

    run(Options(**options))


@main.command()
@click.option("--data-dir", type=DIRECTORY, help="Its files. [EMBED_DATA_DIR/qdrant]")
@click.option("--port", type=PORT, default=6333, show_default=True, help="On 127.0.0.1.")
def qdrant(data_dir: Path | None, port: int) -> None:
    """Run the local Qdrant server alone."""
    from compose.process import ROOT
    from compose.services import qdrant_command
    from tasks.settings import get_settings

    folder = (data_dir or get_settings().data_dir / "qdrant").resolve()
    os.chdir(ROOT)
    os.execv(sys.executable, qdrant_command(folder, port))


@main.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@COLLECTION
@click.option("--on-long", type=click.Choice(["chunk", "truncate", "error"]), help="[chunk]")
@WEB_URL
@click.option("--batch", type=click.IntRange(1, 4096), default=64, help="Documents a request.")
@click.option("--wait/--no-wait", default=True, help="Until all is settled. [wait]")
@click.option("--resume", is_flag=True, help="Go on where an interrupted run stopped.")
@click.option("--text-column", default="text", show_default=True, help="Of CSV and Parquet.")
@click.option("--id-column", help="Of CSV and Parquet. [id, where there is one]")
def ingest(
    files: tuple[str, ...],
    url: str | None,
    text_column: str,
    id_column: str | None,
    resume: bool,
    **options: Any,
) -> None:
    """Send files, folders and patterns: .txt and .md by paragraph, .jsonl by line ({"text", "id"?,
    "metadata"?}), .csv, .tsv and .parquet by row; - is standard input."""
    from compose.ingest import Options, run
    from compose.tables import Columns

    run(files, url, Options(**options), Columns(text_column, id_column), resume=resume)


@main.command()
@click.argument("query")
@COLLECTION
@click.option("--limit", type=click.IntRange(1, 1000), default=5, show_default=True)
@AS_JSON
def search(query: str, collection: str | None, limit: int, as_json: bool) -> None:
    """Find what is nearest to a query."""
    from compose.search import run

    run(query, collection, limit, as_json=as_json)


@main.command()
@click.argument("job_id", metavar="ID")
@WEB_URL
@click.option("--watch", is_flag=True, help="Until it is settled.")
@click.option("--cancel", is_flag=True, help="What has not started.")
def job(job_id: str, url: str | None, watch: bool, cancel: bool) -> None:
    """Show how far a job is."""
    from compose.job import run

    run(job_id, url, watch=watch, cancel=cancel)


@main.command()
@click.argument("job_id", metavar="ID")
@AS_JSON
def verify(job_id: str, as_json: bool) -> None:
    """Compare a job's ledger with the store, document by document."""
    from compose.verify import run

    run(job_id, as_json=as_json)


@main.group()
def dead() -> None:
    """Documents that failed: look at them, send them again, or let them go."""


@dead.command("list")
@click.option("--limit", type=click.IntRange(1, 100_000), default=20, show_default=True)
@click.option("--code", help="Only those that failed with it.")
@AS_JSON
@WEB_URL
def list_letters(limit: int, code: str | None, url: str | None, as_json: bool) -> None:
    """Show the newest, and why they failed."""
    from compose.dead import list_letters as run

    run(url, limit, code, as_json=as_json)


@dead.command("show")
@click.argument("letter_id", metavar="ID")
@AS_JSON
@WEB_URL
def show_letter(letter_id: str, url: str | None, as_json: bool) -> None:
    """Show one whole, with its text."""
    from compose.dead import show as run

    run(letter_id, url, as_json=as_json)


@dead.command("replay")
@choosing_letters
@AS_JSON
@WEB_URL
def replay_letters(url: str | None, as_json: bool, **chosen: Any) -> None:
    """Accept them anew, each under its old acceptance number; waits for room."""
    from compose.dead import replay as run

    ids, code = choose_letters(**chosen)
    run(ids, code, url, as_json=as_json)


@dead.command("purge")
@choosing_letters
@click.option("--yes", is_flag=True, help="Do not ask.")
@AS_JSON
@WEB_URL
def purge_letters(url: str | None, as_json: bool, yes: bool, **chosen: Any) -> None:
    """Remove them with their texts, for good."""
    from compose.dead import purge as run

    ids, code = choose_letters(**chosen)
    if not ids and not yes:
        what = "all dead letters" if code is None else f"all dead letters of code {code}"
        click.confirm(f"Remove {what}?", abort=True, err=True)
    run(ids, code, url, as_json=as_json)


@main.command()
@WEB_URL
def doctor(url: str | None) -> None:
    """Check settings, servers, model and workers, and say what to change."""
    from compose.doctor import run

    run(url)


@main.group()
def keys() -> None:
    """Make, list and revoke the API keys of EMBED_API_KEYS_FILE; the web notices at once."""


def limiting_keys(command: Any) -> Any:
    """A command with a key's limits; 0: none."""
    limit = click.IntRange(min=0)
    command = click.option("--request-bytes", type=limit, help="Of a body; 0: any.")(command)
    return click.option("--texts-per-minute", type=limit, help="0: any number.")(command)


@keys.command("add")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(["ingest", "search", "admin"]),
    multiple=True,
    required=True,
    help="Once for each; admin is for everything.",
)
@limiting_keys
def add_key(name: str, scopes: tuple[str, ...], **limits: int | None) -> None:
    """Make a key and show it, this once."""
    from compose.keys import add

    add(name, scopes, limits)


@keys.command("list")
def list_keys() -> None:
    """Names, scopes, dates and limits."""
    from compose.keys import show

    show()


@keys.command("limit")
@click.argument("name")
@limiting_keys
def limit_key(name: str, **limits: int | None) -> None:
    """Change what a key may send: its texts a minute, and the bytes of a request."""
    if all(limit is None for limit in limits.values()):
        raise click.UsageError("give --texts-per-minute N or --request-bytes N; 0 takes one away")
    from compose.keys import limit

    limit(name, limits)


@keys.command("revoke")
@click.argument("name")
def revoke_key(name: str) -> None:
    """From now on nobody gets in with it."""
    from compose.keys import revoke

    revoke(name)


@main.command()
@click.option("--plain", is_flag=True, help="A line a second, as where there is no terminal.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object a second, for programs.")
@click.option("--count", type=click.IntRange(min=1), help="End after so many.")
def watch(plain: bool, as_json: bool, count: int | None) -> None:
    """See the queue and every process at work, once a second, until Ctrl-C."""
    from compose.watch import run

    run(plain=plain, as_json=as_json, count=count)


@main.command()
@click.argument("files", nargs=-1, type=FILE, metavar="[FILE...]")
@click.option("--budget", callback=parse_duration, default="10m", show_default=True)
@click.option(
    "--max-wait",
    callback=parse_duration,
    default="60s",
    show_default=True,
    help="The longest that an accepted text shall wait; the queue limit follows from it.",
)
@click.option("--apply", is_flag=True, help="Write embedmill.env, which `up` reads.")
@click.option("--json", type=OUTPUT, help="All figures, for programs.")
@click.option("--png", type=OUTPUT, default="embedmill-tune.png", show_default=True)
@click.option("--no-png", is_flag=True, help="No picture.")
@click.option("--data-dir", type=DIRECTORY, help="[EMBED_DATA_DIR]")
def tune(files: tuple[str, ...], no_png: bool, png: Path, **options: Any) -> None:
    """Find the settings that suit this machine, this model and your texts (FILE..., or - for
    standard input; else the Python language reference), by measuring. Ctrl-C ends it with what it
    has found."""
    from compose.tune import Options, run

    run(files, Options(**options, png=None if no_png else png))


@main.command()
@click.option(
    "--target",
    type=click.Choice(["embed", "embeddings"]),
    default="embed",
    show_default=True,
    help="POST /embed, or /v1/embeddings.",
)
@click.option(
    "--clients",
    type=click.IntRange(1, 4096),
    default=8,
    show_default=True,
    help="A closed loop: each asks again when it is answered.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    help="An open loop instead: so many requests a second.",
)
@click.option(
    "--arrivals",
    type=click.Choice(["poisson", "constant"]),
    default="poisson",
    show_default=True,
    help="How those are spaced.",
)
@click.option(
    "--connections",
    type=click.IntRange(1, 4096),
    default=256,
    show_default=True,
    help="At most, of an open loop.",
)
@click.option("--duration", type=SECONDS, default=10.0, show_default=True, help="In seconds.")
@click.option("--timeout", type=SECONDS, default=30.0, show_default=True, help="Of a request.")
@click.option(
    "--texts", type=click.IntRange(1, 4096), default=1, show_default=True, help="A request."
)
@click.option(
    "--mix",
    type=click.Choice(["short", "long", "mixed"]),
    default="mixed",
    show_default=True,
    help="Of the built-in texts.",
)
@click.option("--file", type=FILE, help="Its texts instead, as of `ingest`.")
@click.option(
    "--collection", default="loadtest", show_default=True, help="Where POST /embed puts them."
)
@click.option("--model", help="For /v1/embeddings. [EMBED_MODEL]")
@click.option("--settled", is_flag=True, help="Also how long until jobs are settled.")
@AS_JSON
@WEB_URL
def loadtest(url: str | None, as_json: bool, **options: Any) -> None:
    """Send requests to a running web for a while, and see how long answers take."""
    from compose.loadtest.command import Options, run

    if options["settled"] and options["target"] != "embed":
        raise click.UsageError("only what POST /embed accepts is settled")
    run(url, Options(**options), as_json=as_json)


@main.command()
def demo() -> None:
    """See it work: start it, embed the Python language reference, ask it three questions, stop."""
    from compose.demo import run

    run()
