"""The lane: queries overtake documents, and one that kills its process is answered all the same."""

from collections.abc import Iterator

import pytest

from tasks import embed
from tasks.settings import get_settings
from tasks.snapshot import read_queue
from tests.acceptance.asking import ask, left_over
from tests.processes import wait_until
from tests.redis_server import RedisServer
from tests.web_server import WebServer
from tests.worker import Worker, local_worker
from workers.fake import FakeEncoder

TIMEOUT_S = 60
BULK, HELD = 24, 16


@pytest.fixture(scope="module")
def narrow(stack_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker that holds most of the messages of a test, and makes a slow pass of each."""
    env = {
        "EMBED_FAKE_CALL_MS": "100",
        "EMBED_HANDOVER_DOCUMENTS": "1",
        "EMBED_FAKE_POISON": "true",
    }
    flags = ("--prefetch-multiplier", str(HELD))
    folder = tmp_path_factory.mktemp("narrow")
    with local_worker(folder, stack_env | env, concurrency=1, options=flags) as worker:
        yield worker


def test_queries_overtake_documents_that_wait(
    web: WebServer, narrow: Worker, redis_server: RedisServer
) -> None:
    """Those that the worker holds, too: it is full, fetches the query, and takes it first."""
    results = [embed.delay(f"bulk {n}") for n in range(BULK)]
    wait_until(lambda: redis_server.client.hlen("unacked") >= HELD, "it holds all it may")
    answer = ask(web, *["overtakes"] * 65)  # two messages
    outstanding = read_queue(redis_server.client, get_settings()).outstanding
    assert answer.status_code == 200, answer.text
    assert outstanding > BULK / 2, "the query came after the documents"
    assert [result.get(timeout=TIMEOUT_S)["done"] for result in results] == [1] * BULK


def test_a_query_that_kills_its_process_is_answered_and_does_not_come_back(
    web: WebServer, narrow: Worker, redis_server: RedisServer
) -> None:
    answer = ask(web, FakeEncoder.POISON)
    assert answer.status_code == 503
    assert "lost" in answer.json()["error"]["message"]
    # the next one waits until another process has loaded the model
    assert ask(web, "harmless").status_code == 200
    assert left_over(redis_server) == []
