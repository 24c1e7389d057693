"""The contract and the web stay light, whoever imports them."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "sentence_transformers", "transformers", "qdrant_client", "qdrant_edge")


@pytest.mark.parametrize("module", ["tasks", "tasks.client", "webapp.main", "compose.cli"])
def test_importing_it_loads_nothing_heavy(module: str) -> None:
    program = f"import sys, {module}; print(*[m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
