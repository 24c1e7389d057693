"""The verb `embedmill demo`: the whole product once, on real text, and an end by itself.

Only `compose.cli` imports it. It keeps its data in a directory of its own, takes free ports and
servers of its own, so that it touches nothing else that runs here.
"""

import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import TextIO

import click
from rich.console import Console

from compose.corpus import reference_items
from compose.errors import Interrupted, StackError
from compose.following import Tally
from compose.ingest import Ingestion, Options, summarize
from compose.interruption import EXIT_INTERRUPTED, Interruption, interruption_by_signals
from compose.output import Output
from compose.progress import make_display
from compose.search import Answer, Searcher, describe, describe_timings
from compose.services import Options as StackOptions
from compose.stack import Stack
from compose.web_client import WebClient
from tasks.errors import EmbedError
from tasks.settings import DEFAULT_MODEL, Settings, get_settings

FOLDER = "demo"
LOG = "demo.log"
HITS = 1


@dataclass(frozen=True, slots=True)
class Question:
    """`expected` stands in the best answer of the default model."""

    text: str
    expected: str = ""


QUESTIONS = (
    Question(
        "how are default parameter values evaluated",
        "Default parameter values are evaluated from left to right",
    ),
    Question("does Python run the finally clause if there is a return"),
    Question("what is the difference between is and =="),
)


def run() -> None:
    """Exits with 1 when anything failed, with 130 after Ctrl-C. Raises StackError and the like."""
    settings = get_settings()
    folder = (settings.data_dir / name_folder(settings)).resolve()
    with _log(folder) as log, interruption_by_signals() as interruption:
        try:
            succeeded = _perform(settings, folder, log, interruption)
        except Interrupted:
            click.echo("Interrupted: the demo has stopped what it had started.")
            sys.exit(EXIT_INTERRUPTED)
        except EmbedError:
            click.echo(f"The services' own words: {folder / LOG}", err=True)
            raise
    sys.exit(0 if succeeded else 1)


def name_folder(settings: Settings) -> str:
    """One a model: a collection takes the vectors of a single one."""
    if settings.model_name == DEFAULT_MODEL:
        return FOLDER
    return f"{FOLDER}-{re.sub('[^A-Za-z0-9._-]+', '-', settings.model_name)}"


def _perform(settings: Settings, folder: Path, log: TextIO, interruption: Interruption) -> bool:
    console = Console(highlight=False)
    click.echo(f"Starting everything here; model {settings.model}, data in {folder}")
    stack = Stack(
        StackOptions(data_dir=folder, port=0, isolated=True),
        output=Output(log),
        interruption=interruption,
        on_ready=lambda name, seconds: click.echo(f"  {name:<13}{seconds:5.1f} s"),
    )
    with stack:
        click.echo("\nReading the Python language reference")
        ingestion = _ingest(stack, console)
        click.echo(f"  {summarize(ingestion.tally, ingestion.seconds)}\n")
        points, answered = _ask(stack, settings)
        click.echo("Stopping")
    click.echo(conclude(ingestion.tally, points, folder, settings))
    return answered and not ingestion.tally.failed + ingestion.tally.lost


def _ingest(stack: Stack, console: Console) -> Ingestion:
    with WebClient(stack.web_url) as client, make_display(console) as display:
        ingestion = Ingestion(client, Options(), display, check=stack.check)
        ingestion.run(reference_items())
    return ingestion


def _ask(stack: Stack, settings: Settings) -> tuple[int, bool]:
    """The number of points, and whether the answers are what they should be."""
    own = settings.model_copy(update={"qdrant_url": stack.qdrant_url})
    with Searcher(own, settings.collection) as searcher:
        click.echo(f"Asking it (the model was loaded in {searcher.load_ms / 1000:.1f} s)")
        if settings.model == "fake":
            click.echo("Note: the fake encoder's answers mean nothing.")
        answers = []
        for question in QUESTIONS:
            stack.check()
            answers.append(searcher.search(question.text, HITS))
            click.echo(_show(question, answers[-1]))
        points = searcher.count_points()
    return points, settings.model_name != DEFAULT_MODEL or _are_expected(answers)


def _show(question: Question, answer: Answer) -> str:
    hits = "\n".join(describe(hit) for hit in answer.hits) or "Nothing was found."
    return f"? {question.text}  ({describe_timings(answer)})\n{hits}\n"


def _are_expected(answers: Sequence[Answer]) -> bool:
    for question, answer in zip(QUESTIONS, answers, strict=True):
        best = answer.hits[0].text if answer.hits else ""
        if question.expected not in best:
            click.echo(f"Not the answer that was expected: {question.expected}", err=True)
            return False
    return True


def conclude(tally: Tally, points: int, folder: Path, settings: Settings) -> str:
    """The last words: the counts, and what to do next."""
    shown, program = _relative(folder), _program()
    return f"""
{tally.accepted:,} paragraphs accepted = {tally.done:,} done + {tally.failed:,} failed.
{points:,} points in the collection {settings.collection}: the same paragraph twice is one document,
and a long one is several points.
Data: {shown}   Log: {shown / LOG}

Next:
  make up                          # the whole stack, until Ctrl-C; and in another terminal:
  {program} ingest notes.md
  {program} search "what did I note?"
Or, on the demo's data:
  {_variables(shown, settings)} {program} up"""


def _variables(folder: Path, settings: Settings) -> str:
    """What another start needs to go on with the demo's data."""
    words = [f"EMBED_DATA_DIR={shlex.quote(str(folder))}"]
    if settings.model_name != DEFAULT_MODEL:
        words.append(f"EMBED_MODEL={shlex.quote(settings.model)}")
    return " ".join(words)


def _program() -> str:
    """The command as it can be typed here: a virtual environment need not be active."""
    name = "embedmill"
    return name if which(name) else str(_relative(Path(sys.executable).parent / name))


def _relative(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


@contextmanager
def _log(folder: Path) -> Iterator[TextIO]:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = (folder / LOG).open("a", encoding="utf-8", buffering=1)
    except OSError as error:
        raise StackError(f"{folder} cannot be used as data directory: {error}") from error
    with file:
        yield file
