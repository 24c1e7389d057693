"""`embedmill watch` as a process: on a real Redis, and while there is none."""

import json
import signal
import sys
from pathlib import Path
from typing import Any

from tasks.ledger import Ledger, run
from tasks.settings import Settings
from tests.integration.test_ledger import submission
from tests.processes import Program, wait_until
from tests.redis_server import local_redis

EMBEDMILL = str(Path(sys.executable).parent / "embedmill")


def rows(program: Program) -> list[dict[str, Any]]:
    """The whole lines so far."""
    return [
        json.loads(line) for line in program.output().splitlines(keepends=True) if line[-1:] == "\n"
    ]


def test_it_goes_on_when_redis_is_back(tmp_path: Path) -> None:
    with local_redis(tmp_path) as own:
        settings = Settings(broker_url=own.url, queue_limit=77)
        env = {"EMBED_BROKER_URL": own.url}
        program = Program([EMBEDMILL, "watch", "--json"], log=tmp_path / "watch.log", env=env)
        try:
            program.wait_until(lambda: rows(program), "it has seen something")
            run(own.client, Ledger(settings).accept(submission("j", 5)))
            wait_until(lambda: rows(program)[-1].get("outstanding") == 5, "it sees the job")
            assert rows(program)[-1]["limit"] == 77  # of who accepts, not of who looks
            own.kill()
            wait_until(lambda: "error" in rows(program)[-1], "it says that Redis is away")
            own.restart()
            wait_until(lambda: rows(program)[-1].get("outstanding") == 5, "it sees the job again")
            program.send(signal.SIGINT)
            assert program.wait() == 0
        finally:
            program.stop()


def test_it_ends_after_so_many_lines(tmp_path: Path) -> None:
    env = {"EMBED_BROKER_URL": "redis://127.0.0.1:1/0"}
    argv = [EMBEDMILL, "watch", "--plain", "--count", "1"]
    program = Program(argv, log=tmp_path / "watch.log", env=env)
    assert program.wait() == 0
    assert program.output().count("\n") == 1
    assert "does not answer" in program.output()
