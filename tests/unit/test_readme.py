"""The README tells the truth about names."""

import re
from pathlib import Path

import click
import pytest

from compose.cli import main
from tasks.settings import PREFIX, Settings
from webapp.main import create_app

README = Path(__file__).parents[2].joinpath("README.md").read_text()


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_stands_in_the_readme_with_its_default(name: str) -> None:
    field = Settings.model_fields[name]
    default = "unset" if field.default is None else field.default
    assert f"| `{PREFIX}{name.upper()}` | `{default}` | {field.description} |" in README


def test_every_route_stands_in_the_readme() -> None:
    for path, methods in create_app().openapi()["paths"].items():
        for method in methods:
            shown = re.sub(r"{\w+_id}", "{id}", path)
            assert f"{method.upper()} {shown}`" in README


def test_every_verb_stands_in_the_readme() -> None:
    assert isinstance(main, click.Group)
    for name, verb in main.commands.items():
        below = verb.commands if isinstance(verb, click.Group) else ()
        for shown in (f"{name} {command}" for command in below) if below else (name,):
            assert f"`{shown}" in README
