"""The operations page names what can be seen."""

import re
from pathlib import Path

import pytest

from workers.startup import EX_CONFIG

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/operations.md").read_text()
CODES = re.findall(r'code="(\w+)"', (ROOT / "webapp/health.py").read_text())


def test_the_readme_leads_to_it() -> None:
    assert "(docs/operations.md)" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("code", CODES)
def test_every_trouble_of_readyz_stands_there(code: str) -> None:
    assert f"| `{code}` |" in PAGE


def test_the_status_of_a_worker_without_a_model_stands_there() -> None:
    assert f"| worker | {EX_CONFIG} |" in PAGE
