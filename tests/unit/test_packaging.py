"""What is installed is complete."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_script_is_part_of_its_package() -> None:
    project = tomllib.loads(ROOT.joinpath("pyproject.toml").read_text())["tool"]["setuptools"]
    folders = [ROOT / name.replace(".", "/") for name in project["packages"]]
    globs = project["package-data"]["*"]
    packed = {path for folder in folders for glob in globs for path in folder.glob(glob)}
    assert {path for folder in folders for path in folder.rglob("*.lua")} <= packed


def test_nothing_is_required_twice() -> None:
    project = tomllib.loads(ROOT.joinpath("pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    for group in groups:
        names = [re.split(r"[^\w.-]", requirement)[0].lower() for requirement in group]
        assert len(names) == len(set(names)), names
