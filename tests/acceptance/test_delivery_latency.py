"""An idle worker starts what comes as promptly as with kombu's own transport."""

import time
from pathlib import Path
from statistics import median

import pytest
import redis

from tests.counting import QUEUES, RUNS, STARTED, counting_worker, send
from tests.processes import wait_until
from tests.redis_server import RedisServer

MESSAGES = 25
SLACK = 3.0
"""A machine that is shared is no stopwatch; waiting for one queue after the other costs tenfold."""


def latency_s(client: redis.Redis, url: str, number: int, queue: str) -> float:
    """From publishing to the start of the task."""
    began = time.time()
    send(url, "count", [number], queue)
    wait_until(lambda: client.hexists(RUNS, str(number)), "the task has run")
    return float(client.hget(STARTED, str(number)) or 0) - began


@pytest.mark.parametrize("names", [QUEUES[:1], QUEUES], ids=["one queue", "two queues"])
def test_an_idle_worker_is_as_prompt_as_with_kombus_own_transport(
    broker: RedisServer, tmp_path: Path, names: tuple[str, ...]
) -> None:
    """Two workers on two databases of one Redis, in turns."""
    other_url = broker.url.removesuffix("/0") + "/1"
    flags = ("-Q", ",".join(names))
    (tmp_path / "stock").mkdir()
    with (
        redis.Redis.from_url(other_url) as other,
        counting_worker(broker.url, tmp_path, *flags),
        counting_worker(other_url, tmp_path / "stock", *flags, env={"EMBED_ATOMIC_FETCH": "false"}),
    ):
        ours, stock = [], []
        for number in range(MESSAGES):
            queue = names[number % len(names)]
            ours.append(latency_s(broker.client, broker.url, number, queue))
            stock.append(latency_s(other, other_url, number, queue))
        other.flushdb()
    print(f"p50 {median(ours) * 1000:.1f} ms, with kombu's own {median(stock) * 1000:.1f} ms")
    assert median(ours) <= SLACK * median(stock)
