"""Queries in the middle of a pass: one waits for a call of the model, and harms no document."""

import time
from collections.abc import Iterator
from itertools import count

import httpx
import pytest

from tasks import embed
from tasks.client import Job, submit
from tasks.settings import get_settings
from tasks.statistics import read_statistics
from tests.acceptance.asking import ask, left_over
from tests.bench.figures import percentile
from tests.processes import wait_until
from tests.redis_server import RedisServer
from tests.web_server import WebServer
from tests.worker import Worker, local_worker
from workers.fake import FakeEncoder

TIMEOUT_S = 60
QUERIES = 12
ROUNDS = 3
numbers = count(1)


@pytest.fixture(scope="module")
def wide(stack_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker whose passes are sixteen calls of the model: 64 texts of two words, four a call."""
    env = {
        "EMBED_FAKE_CALL_MS": "120",
        "EMBED_BATCH_TOKENS": "8",
        "EMBED_POISON_LOSSES": "1",
        "EMBED_FAKE_POISON": "true",
    }
    folder = tmp_path_factory.mktemp("wide")
    with local_worker(folder, stack_env | env, concurrency=1, name="wide") as worker:
        embed.delay("makes the collection", collection="lane").get(timeout=TIMEOUT_S)
        yield worker


def run_documents(broker: RedisServer, worker: Worker, texts: int) -> Job:
    """A job that has begun."""
    job = submit([f"document {next(numbers)}" for _ in range(texts)], collection="lane")
    wait_until(lambda: broker.client.hlen("unacked"), "the worker has begun")
    return job


def time_queries(web: WebServer) -> float:
    """The 95th percentile of what some take, one after the other, in seconds."""
    taken_s = []
    with httpx.Client(base_url=web.url, timeout=TIMEOUT_S) as client:
        for number in range(QUERIES):
            began_s = time.monotonic()
            body = {"input": f"query {number}", "model": "fake"}
            client.post("/v1/embeddings", json=body).raise_for_status()
            taken_s.append(time.monotonic() - began_s)
    return percentile(taken_s, 95)


def test_a_query_interrupts_a_pass(web: WebServer, wide: Worker, redis_server: RedisServer) -> None:
    """It waits for a call of the model, and not for the pass of sixteen. What else the machine does
    can only add to it: once it has to be so."""
    for _ in range(ROUNDS):
        idle_s = time_queries(web)
        job = run_documents(redis_server, wide, 128)
        busy_s = time_queries(web)
        assert job.progress().done < 128, "the documents did not last"
        job.wait(timeout_s=TIMEOUT_S)
        statistics = read_statistics(redis_server.client, get_settings())
        stages = statistics.histograms
        call_s = stages["encode"].sum / statistics.counters["model_calls"]
        if busy_s <= idle_s + 2 * call_s:
            break
    else:
        pytest.fail(f"{busy_s} s among documents, {idle_s} s without, {call_s} s a call")
    assert stages["queries"].sum >= QUERIES / 2 * call_s
    assert sum(stages["query"].counts) >= 2 * QUERIES
    assert left_over(redis_server) == []


def test_a_query_that_kills_a_pass_is_blamed_on_no_document(
    web: WebServer, wide: Worker, redis_server: RedisServer
) -> None:
    """The second time between documents that run alone: one loss would be one too many."""
    job = run_documents(redis_server, wide, 24)
    assert "lost" in ask(web, FakeEncoder.POISON).text
    wait_until(lambda: job.progress().done, "documents run one by one")
    assert "lost" in ask(web, FakeEncoder.POISON).text
    found = job.wait(timeout_s=TIMEOUT_S)
    assert (found.done, found.failed) == (24, 0)
    assert left_over(redis_server) == []
