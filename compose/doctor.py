"""The verb `embedmill doctor`: checks one by one, in words; only `compose.cli` imports it."""

import sys
from collections.abc import Iterator

import click

from compose import checks
from compose.addresses import find_services, find_web
from compose.checks import Check, Finding, Level
from tasks.errors import EmbedError
from tasks.settings import get_settings

CHECKS: tuple[Check, ...] = (
    checks.check_redis,
    checks.check_qdrant,
    checks.check_model,
    checks.check_workers,
    checks.check_threads,
)
COLOURS = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: "red"}


def run(url: str | None) -> None:
    """The verb: exits with 1 when there is a problem."""
    problems = warnings = 0
    for finding in examine(url):
        click.echo(describe(finding))
        problems += finding.level is Level.PROBLEM
        warnings += finding.level is Level.WARNING
    click.echo(f"\nProblems: {problems}, warnings: {warnings}.")
    sys.exit(1 if problems else 0)


def examine(url: str | None) -> Iterator[Finding]:
    """All findings, as they are made. `url`: the web's, when it is given."""
    try:
        settings = get_settings()
        found = find_services(settings)
        web_url = find_web(settings, url)
    except EmbedError as error:
        yield Finding(Level.PROBLEM, "settings", error.detail)
        return
    yield from checks.check_settings(settings)
    for check in CHECKS:
        yield from check(found)
    yield from checks.check_web(web_url)


def describe(finding: Finding) -> str:
    """A line, and one with the advice where there is any."""
    level = click.style(f"{finding.level:<8}", fg=COLOURS[finding.level])
    line = f"{level} {finding.subject:<11}{finding.detail}"
    return f"{line}\n{'':<20}-> {finding.advice}" if finding.advice else line
