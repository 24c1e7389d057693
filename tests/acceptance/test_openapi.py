"""What the web answers is what its OpenAPI says, whatever is sent: schemathesis asks it."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.web_server import WebServer, local_web
from tests.worker import Worker
from webapp.keyring import Key, Scope, digest, write_keys

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
EXAMPLES = 10
"""Of each operation in each phase; several hundred cases in all."""
FEWEST_CASES = 300
SECRET = "em_schemathesis"
EXCLUDED = (
    # a schema cannot say that a text must not be blank, or an id stand twice
    "positive_data_acceptance",
    # a cancelled job can still be asked for
    "use_after_free",
)


def schemathesis(url: str, folder: Path, options: Sequence[str]) -> str:
    """Its report. Fails with it where an answer is not as documented."""
    program = shutil.which("schemathesis", path=str(Path(sys.executable).parent))
    assert program is not None
    argv = [program, "run", f"{url}/openapi.json", "--no-color", "--seed", "1"]
    argv += ["--max-examples", str(EXAMPLES), "--exclude-checks", ",".join(EXCLUDED)]
    done = subprocess.run(
        [*argv, "--checks", "all", *options],
        cwd=folder,  # it leaves its cache there
        env={
            **os.environ,
            "SCHEMATHESIS_HOOKS": "tests.schemathesis_hooks",
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def count_cases(report: str) -> int:
    found = re.search(r"([\d,]+) generated", report)
    assert found, report
    return int(found[1].replace(",", ""))


def test_without_keys(web: WebServer, worker: Worker, tmp_path: Path) -> None:
    assert count_cases(schemathesis(web.url, tmp_path, ())) >= FEWEST_CASES


def test_with_keys(stack_env: dict[str, str], worker: Worker, tmp_path: Path) -> None:
    """It also asks without a key, and with a wrong one, and wants to be refused."""
    now = "2026-01-01T00:00:00Z"
    fields = {"name": "tester", "sha256": digest(SECRET), "scopes": [Scope.ADMIN]}
    write_keys(tmp_path / "keys.jsonl", [Key.model_validate(fields | {"created_at": now})])
    env = stack_env | {"EMBED_API_KEYS_FILE": str(tmp_path / "keys.jsonl")}
    with local_web(tmp_path, env) as web:
        options = ("--header", f"Authorization: Bearer {SECRET}")
        assert count_cases(schemathesis(web.url, tmp_path, options)) >= FEWEST_CASES
