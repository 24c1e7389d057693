"""An upload that is many times what the queue holds, cut off at random and sent again."""

import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import orjson
import psutil
import pytest
from qdrant_client import models

from tests.processes import wait_until
from tests.qdrant_server import LocalQdrant
from tests.redis_server import local_redis
from tests.web_server import WebServer, local_web
from tests.worker import local_worker

MIB = 1024 * 1024
LIMIT = 2000
LIMIT_BYTES = 16 * MIB
TEXT_BYTES = 8000
CUTS = 6
HEAD_BYTES = 64 * MIB
"""After so much the queue has been full, and every buffer used."""
SAMPLE_S = 0.2


class Cut(Exception):
    """The client goes away in the middle of its body."""


@dataclass
class Samples:
    """What was seen while it ran, a few times a second."""

    web: WebServer
    sent_bytes: int = 0
    outstanding: int = 0
    outstanding_bytes: int = 0
    head_mib: float = 0.0
    peak_mib: float = 0.0
    ended: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        web = psutil.Process(self.web.program.pid)
        with httpx.Client(base_url=self.web.url) as client:
            while not self.ended.wait(SAMPLE_S):
                queue = client.get("/queue").json()
                self.outstanding = max(self.outstanding, queue["outstanding"])
                self.outstanding_bytes = max(self.outstanding_bytes, queue["outstanding_bytes"])
                mib = web.memory_full_info().pss / MIB
                self.peak_mib = max(self.peak_mib, mib)
                if self.sent_bytes < HEAD_BYTES:
                    self.head_mib = max(self.head_mib, mib)


def lines(count: int) -> Iterator[bytes]:
    for number in range(count):
        text = f"line {number} " + "word " * (TEXT_BYTES // 5)
        yield orjson.dumps({"id": str(number), "text": text}) + b"\n"


def body(count: int, samples: Samples, cut_after: int | None) -> Iterator[bytes]:
    for number, line in enumerate(lines(count)):
        if number == cut_after:
            raise Cut
        samples.sent_bytes += len(line)
        yield line


def send(client: httpx.Client, count: int, samples: Samples, cut_after: int | None) -> int:
    """The upload's documents so far; 0 when it was cut off, or another still ran."""
    headers = {"Content-Type": "application/x-ndjson", "Idempotency-Key": "big"}
    params = {"collection": "big", "on_long": "truncate"}
    content = body(count, samples, cut_after)
    try:
        response = client.post("/embed", content=content, headers=headers, params=params)
    except Cut:
        return 0
    if response.status_code == 409:
        return 0
    assert response.status_code == 202, response.text
    answer = response.json()
    return int(answer["accepted"] + answer["accepted_before"])


def upload(folder: Path, qdrant: LocalQdrant, mebibytes: int) -> Samples:
    """That much through a stack, with cuts; all of it is in the store afterwards, once."""
    count, chance = mebibytes * MIB // TEXT_BYTES, random.Random(11)
    with local_redis(folder) as redis:
        env = {
            "EMBED_BROKER_URL": redis.url,
            "EMBED_QDRANT_URL": qdrant.url,
            "EMBED_MODEL": "fake",
            "EMBED_QUEUE_LIMIT": str(LIMIT),
            "EMBED_QUEUE_BYTES": str(LIMIT_BYTES),
        }
        with local_worker(folder, env), local_web(folder, env) as web:
            samples = Samples(web)
            watching = threading.Thread(target=samples.watch)
            watching.start()
            try:
                with httpx.Client(base_url=web.url, timeout=None) as client:
                    for cut in sorted(chance.sample(range(count), CUTS)):
                        send(client, count, samples, cut)
                    wait_until(lambda: send(client, count, samples, None) == count, "all is sent")
                    wait_until(
                        lambda: not client.get("/queue").json()["outstanding"], "all is settled"
                    )
                    metrics = client.get("/metrics").text
            finally:
                samples.ended.set()
                watching.join()
    assert f"embedmill_accepted_texts_total {float(count)}" in metrics
    assert f"embedmill_done_texts_total {float(count)}" in metrics
    with qdrant.connect() as store:
        assert store.count("big", exact=True).count == count
        last = models.FieldCondition(
            key="document_id", match=models.MatchValue(value=str(count - 1))
        )
        assert store.count("big", count_filter=models.Filter(must=[last])).count == 1
    return samples


@pytest.mark.slow
def test_an_upload_of_any_size_takes_no_more_memory(tmp_path: Path, qdrant: LocalQdrant) -> None:
    samples = upload(tmp_path, qdrant, 40)
    assert samples.outstanding <= LIMIT
    assert samples.outstanding_bytes <= LIMIT_BYTES
    assert samples.sent_bytes > 2 * 40 * MIB
    assert samples.peak_mib - samples.head_mib < 16, samples
