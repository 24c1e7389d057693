"""The real model under fire: children and main processes are killed while it works."""

import subprocess
import sys
from pathlib import Path

import httpx
import orjson
import pytest

from compose.corpus import reference_items
from tasks.client import Job, submit
from tasks.settings import DEFAULT_MODEL
from tests.processes import wait_until
from tests.qdrant_server import LocalQdrant
from tests.redis_server import RedisServer
from tests.worker import Worker, local_worker

DOCUMENTS = 300
COLLECTION = "real"
TIMEOUT_S = 240


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_real_model_loses_nothing_when_it_is_killed(
    broker: RedisServer,
    qdrant: LocalQdrant,
    stack_env: dict[str, str],
    tmp_path: Path,
) -> None:
    env = stack_env | {
        "EMBED_MODEL": DEFAULT_MODEL,
        "EMBED_COLLECTION": COLLECTION,  # the usual one of this session's store is another model's
        "EMBED_VISIBILITY_TIMEOUT_S": "10",
    }
    texts = list({orjson.loads(item.body)["text"] for item in reference_items()})[:DOCUMENTS]
    # before there is a worker: this process' settings name the fake model, and the ledger refuses
    # that for a collection which the real one has made
    jobs = [submit(texts[at : at + 20], collection=COLLECTION) for at in range(0, DOCUMENTS, 20)]
    with local_worker(tmp_path, env, name="first") as worker:
        _wait_for(jobs, done=1)
        worker.children()[0].kill()
        _wait_for(jobs, done=40)
        _kill_whole(worker)
    with local_worker(tmp_path, env, name="second") as worker:
        wait_until(lambda: _settled(jobs), "all is settled", timeout_s=TIMEOUT_S)
    assert sum(job.progress().done for job in jobs) == DOCUMENTS
    count = httpx.post(f"{qdrant.url}/collections/{COLLECTION}/points/count", json={}).json()[
        "result"
    ]
    assert count["count"] == sum(job.progress().points for job in jobs)
    for job in jobs:
        assert _verified(job, env)


def _wait_for(jobs: list[Job], *, done: int) -> None:
    def reached() -> bool:
        return sum(job.progress().done for job in jobs) >= done

    wait_until(reached, f"{done} are done", timeout_s=TIMEOUT_S)


def _settled(jobs: list[Job]) -> bool:
    return all(job.progress().state != "open" for job in jobs)


def _kill_whole(worker: Worker) -> None:
    children = worker.children()
    worker.program.kill()
    wait_until(lambda: not any(child.is_running() for child in children), "its children end")


def _verified(job: Job, env: dict[str, str]) -> bool:
    done = subprocess.run(
        [Path(sys.executable).with_name("embedmill"), "verify", job.id],
        env={"PATH": "/usr/bin:/bin", **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return True
