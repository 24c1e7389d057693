"""What another version of ours has enqueued: an earlier one's runs, a later one's is not lost."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from tasks.client import Job, submit
from tasks.queries import Answer
from tasks.settings import Settings
from tests import frozen
from tests.processes import wait_until
from tests.qdrant_server import LocalQdrant
from tests.redis_server import RedisServer
from tests.worker import local_worker
from workers.encoder import encode_texts
from workers.fake import FakeEncoder

VERSIONS = sorted(frozen.FOLDER.glob("queue-*.json"))


@pytest.mark.parametrize("path", VERSIONS, ids=lambda path: path.stem)
def test_what_a_version_before_has_enqueued_is_done(
    broker: RedisServer, qdrant: LocalQdrant, stack_env: dict[str, str], tmp_path: Path, path: Path
) -> None:
    queue = frozen.thaw(broker.client, path)
    with local_worker(tmp_path, stack_env, concurrency=1, awaited=False):
        # first, as answers live some seconds
        wait_until(lambda: broker.client.llen(queue["box"]), "the query is answered", timeout_s=60)
        row: Any = broker.client.lpop(queue["box"])
        jobs = [Job(job_id, ()).wait(60) for job_id in queue["jobs"]]
    assert [(job.state, job.done, job.points) for job in jobs] == [("done", 2, 2), ("done", 1, 1)]
    with qdrant.connect() as client:
        points, _ = client.scroll("frozen", limit=10)
    texts = {point.payload["text"] for point in points if point.payload}
    assert texts == {document["text"] for document in [*frozen.DOCUMENTS, frozen.DELAYED]}
    vector = np.frombuffer(base64.b64decode(Answer.from_json(row).vectors), dtype="<f4")
    (expected,) = encode_texts(FakeEncoder(Settings(model="fake")), [frozen.QUERY])
    assert np.allclose(vector, expected)


def test_a_later_version_s_message_waits_for_a_worker_that_reads_it(
    broker: RedisServer, stack_env: dict[str, str], tmp_path: Path
) -> None:
    later = submit("in a form of tomorrow")
    packed = broker.client.lpop("embed")
    assert isinstance(packed, bytes)
    message = orjson.loads(packed)
    message["headers"]["embedmill"]["v"] = 2
    message["body"] = base64.b64encode(b'{"rows": "who knows"}').decode()
    broker.client.lpush("embed", orjson.dumps(message))
    with local_worker(tmp_path, stack_env, concurrency=1) as worker:
        said = f"task {later.id} is a message of version 2, this worker reads 1"
        worker.program.wait_until(lambda: said in worker.program.output(), "it says so")
        assert submit("one that it reads").wait(60).done == 1
        assert later.progress().state == "open"
    wait_until(lambda: broker.client.llen("embed") == 1, "it is in the queue again")
    (kept,) = broker.client.lrange("embed", 0, -1)
    assert isinstance(kept, bytes)
    assert orjson.loads(kept)["headers"]["embedmill"]["v"] == 2
    assert later.progress().state == "open"
