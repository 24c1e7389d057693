"""The verb `embedmill tune`: measures on a private stack, recommends, and writes it down if asked.

Only `compose.cli` imports it. Nothing that runs here is touched, but it competes for the cores.
"""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TextIO

import click
import orjson
from rich.console import Console

from compose.errors import InputError, Interrupted, OutOfTime, StackError
from compose.interruption import EXIT_INTERRUPTED, interruption_by_signals
from compose.output import Output
from compose.progress import format_duration
from compose.tuning.advice import NAMES, Advice, Findings, advise
from compose.tuning.duels import Budget
from compose.tuning.ground import Ground, private_ground
from compose.tuning.progress import make_display
from compose.tuning.report import show, to_json
from compose.tuning.saving import save
from compose.tuning.session import Session
from compose.tuning.texts import read_texts
from tasks.errors import EmbedError
from tasks.settings import Settings, given_names, settings_for

FOLDER = "tune"
LOG = "tune.log"
PICTURES = (".png", ".svg", ".pdf")
NARROW = 120
"""Columns of a table where the output is no terminal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `embedmill tune` can be told; times in seconds."""

    budget: float
    max_wait: float
    apply: bool = False
    json: Path | None = None
    png: Path | None = None
    data_dir: Path | None = None


def run(files: Sequence[str], options: Options) -> None:
    """Exits with 130 after Ctrl-C, with 1 when it broke off with something found.

    Raises SettingsError, InputError, and what kept it from finding anything.
    """
    _check_files(options)
    settings = settings_for(options.data_dir)
    texts = read_texts(files, settings)
    home = (options.data_dir or settings.data_dir).resolve()
    began_s = time.monotonic()
    console = Console(width=None if sys.stdout.isatty() else NARROW)
    click.echo(
        f"Measuring for {format_duration(options.budget)} at most, with {len(texts):,} texts; "
        f"model {settings.model}, backend {settings.backend}"
    )
    budget = Budget(options.budget)
    found: Findings | None = None
    cut_off: EmbedError | None = None
    with _log(home / FOLDER) as log, interruption_by_signals() as interruption:
        try:
            with private_ground(
                settings, texts, home / FOLDER, Output(log), interruption
            ) as ground:
                found, cut_off = _measure(ground, budget, console)
        except EmbedError as error:  # before anything was measured, or while the servers ended
            cut_off = error
    if found is None:
        assert cut_off is not None
        _end_without_findings(cut_off, home)
    advice = advise(found, options.max_wait)
    show(found, advice, console)
    about = {**_about(settings, texts, found), "took_s": round(time.monotonic() - began_s, 1)}
    if cut_off is None:
        _apply(options, advice, home)  # first: files that cannot be written must not cost it
    elif not isinstance(cut_off, Interrupted):
        click.echo(f"Error: {cut_off.detail}", err=True)
        _name_log(home)
    _write(options, found, advice, about)
    if cut_off is not None:
        _end_early(cut_off)


def _end_early(cause: EmbedError) -> NoReturn:
    interrupted = isinstance(cause, Interrupted)
    why = "Interrupted" if interrupted else "It could not go on"
    click.echo(f"{why}: this is what was found until then; nothing was applied.")
    sys.exit(EXIT_INTERRUPTED if interrupted else 1)


def _end_without_findings(cause: EmbedError, home: Path) -> NoReturn:
    if isinstance(cause, Interrupted):
        click.echo("Interrupted before anything was measured.")
        sys.exit(EXIT_INTERRUPTED)
    if isinstance(cause, OutOfTime):
        raise StackError(f"{cause.detail}: not even the default was measured") from cause
    _name_log(home)
    raise cause


def _name_log(home: Path) -> None:
    click.echo(f"The services' own words: {home / FOLDER / LOG}", err=True)


def _check_files(options: Options) -> None:
    """Before minutes are spent. Raises InputError."""
    for path in filter(None, (options.json, options.png)):
        if not path.parent.is_dir():
            raise InputError(f"{path} cannot be written: there is no folder {path.parent}")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise InputError(f"{path} cannot be written: it is not allowed")
    if options.png and options.png.suffix.lower() not in PICTURES:
        raise InputError(f"{options.png} is no picture that can be drawn: {', '.join(PICTURES)}")


def _measure(
    ground: Ground, budget: Budget, console: Console
) -> tuple[Findings | None, EmbedError | None]:
    """What was found, and what cut it off. Raises what did before anything was found."""
    session: Session | None = None

    def estimate() -> tuple[float, float]:
        return session.estimate() if session else (0.0, budget.seconds)

    with make_display(console, estimate) as display:
        session = Session(ground.space, ground.mill, budget, display)
        try:
            session.run(ground.door)
        except EmbedError as error:
            if session.found is None:
                raise
            return session.found, error
        finally:
            display.doing("stopping")
            session.end()
    return session.found, None


def _about(settings: Settings, texts: list[str], found: Findings) -> dict[str, Any]:
    return {
        "model": settings.model_name,
        "backend": settings.backend,
        "cores": found.space.cores,
        "gpus": found.space.gpus,
        "texts": len(texts),
        "mean_text_characters": round(sum(map(len, texts)) / len(texts)),
    }


def _write(options: Options, found: Findings, advice: Advice, about: dict[str, Any]) -> None:
    """The files that were asked for."""
    if options.json:
        content = orjson.dumps(to_json(found, advice, about), option=orjson.OPT_INDENT_2)
        try:
            options.json.write_bytes(content + b"\n")
        except OSError as error:
            raise InputError(f"{options.json} cannot be written: {error.strerror}") from error
    if options.png:
        _draw(found, options.png, about)


def _draw(found: Findings, path: Path, about: dict[str, Any]) -> None:
    from compose.tuning.picture import draw

    cores = f"{about['cores']} core{'s' * (about['cores'] > 1)}"
    gpus = f", {about['gpus']} GPUs" if about["gpus"] else ""
    title = f"{about['model']}, {about['backend']}, {cores}{gpus}"
    try:
        draw(found, path, title)
    except ImportError:
        click.echo(
            "No picture: matplotlib is not installed; install embedmill[tune], or give --no-png.",
            err=True,
        )
    else:
        click.echo(f"Picture: {path}")


def _apply(options: Options, advice: Advice, home: Path) -> None:
    if not options.apply:
        click.echo("`--apply` writes these settings where `embedmill up` reads them.")
        return
    click.echo(f"Written to {save(home, advice.changes)}")
    for name in sorted(given_names().intersection(NAMES)):
        click.echo(f"Note: {name} is set in the environment, which wins over the file.")


@contextmanager
def _log(folder: Path) -> Iterator[TextIO]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        log = (folder / LOG).open("w", encoding="utf-8")
    except OSError as error:
        raise StackError(f"{folder} cannot be used: {error.strerror}") from error
    with log:
        yield log
