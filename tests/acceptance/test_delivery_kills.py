"""Nothing is lost, whatever is killed while messages are on their way to a task."""

import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.consuming import LEASE_S, consuming, publish
from tests.counting import GATE, RUNS, counting_worker, send
from tests.processes import Program
from tests.redis_server import RedisServer, local_redis

ROOT = Path(__file__).parents[2]
QUICK: dict[str, Any] = {"visibility_timeout": LEASE_S, "unacked_restore_interval": 0.1}

POINTS = [
    ("Channel._take_in", "ack"),  # the reply has come
    ("QoS.hold", "ack"),
    ("Channel._read", "ack"),
    ("QoS.append", "ack"),
    ("QoS.ack", "ack"),  # the work is done
    ("QoS.restore_by_tag", "requeue"),
    ("QoS._address", "requeue"),  # read, and not yet put back
]


def die_at(broker: RedisServer, folder: Path, point: str, kind: str) -> None:
    argv = [sys.executable, "-m", "tests.dying_consumer", broker.url, point, kind]
    program = Program(argv, log=folder / "dying.log", cwd=ROOT)
    assert program.wait() == -signal.SIGKILL, program.output()


@pytest.mark.parametrize(("point", "kind"), POINTS)
def test_a_consumer_killed_at_any_point_loses_nothing(
    broker: RedisServer, tmp_path: Path, point: str, kind: str
) -> None:
    publish(broker.url, "a", 1, 2, 3)
    die_at(broker, tmp_path, point, kind)
    assert broker.client.llen("a") == 1
    with consuming(broker.url, **QUICK) as heir:
        assert sorted(heir.receive(3)) == [1, 2, 3]


def test_kombus_own_consumer_loses_a_message_at_the_same_point(
    broker: RedisServer, tmp_path: Path
) -> None:
    """If this fails kombu has mended its fetch: see what of `workers.transport` is still needed."""
    publish(broker.url, "a", 1, 2, 3)
    die_at(broker, tmp_path, "stock:QoS.append", "ack")
    assert (broker.client.llen("a"), broker.client.hlen("unacked")) == (2, 0)


def runs(broker: RedisServer) -> dict[int, int]:
    return {int(number): int(count) for number, count in broker.client.hgetall(RUNS).items()}


def settled(broker: RedisServer) -> bool:
    left = broker.client.llen("first") + broker.client.hlen("unacked")
    return left == 0 and broker.client.zcard("unacked_index") == 0


@pytest.mark.slow
def test_workers_killed_while_messages_stream_lose_none(
    broker: RedisServer, tmp_path: Path
) -> None:
    send(broker.url, "count", range(400))

    def have_run(share: int) -> bool:
        return len(runs(broker)) > share

    with counting_worker(broker.url, tmp_path) as worker:
        for share in (50, 150, 250):
            worker.wait_until(partial(have_run, share), f"{share} have run")
            worker.kill()
            worker.restart()
        worker.wait_until(lambda: settled(broker), "all are settled")
    assert sorted(runs(broker)) == list(range(400))


def test_a_worker_keeps_what_it_holds_until_it_dies(broker: RedisServer, tmp_path: Path) -> None:
    """Two are started and four prefetched, and another consumer looks out for ended leases."""
    lease_s = 3

    def renewed_at() -> float:
        return max(float(score) for _, score in broker.client.zscan_iter("unacked_index"))

    send(broker.url, "hold", range(6))
    # prefetch for six and no more: it could not take back what the other puts into the queue
    env = {"COUNTING_LEASE_S": str(lease_s), "COUNTING_SWEEP_S": "60", "COUNTING_PREFETCH": "3"}
    with counting_worker(broker.url, tmp_path, env=env) as worker:
        worker.wait_until(lambda: len(runs(broker)) == 2, "two have started")
        began = renewed_at()
        sweeps: dict[str, Any] = {"unacked_restore_interval": 0.2, "visibility_timeout": lease_s}
        with consuming(broker.url, ["first"], **sweeps) as heir:
            heir.until(lambda: renewed_at() > began + 2 * lease_s)
            assert heir.messages == []
            worker.kill()
            heir.receive(6)
            assert sorted(body[0][0] for body in heir.bodies) == list(range(6))
            assert all(message.headers["redelivered"] for message in heir.messages)


def test_rejecting_under_load_comes_to_an_end(broker: RedisServer, tmp_path: Path) -> None:
    send(broker.url, "refuse", range(100))
    with counting_worker(broker.url, tmp_path) as worker:
        worker.wait_until(lambda: settled(broker), "all are settled")
    assert runs(broker) == dict.fromkeys(range(100), 2)


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_worker_survives_the_death_of_redis_with_messages_in_hand(
    tmp_path: Path, pool: str
) -> None:
    with local_redis(tmp_path) as broker:
        send(broker.url, "hold", range(12))
        with counting_worker(broker.url, tmp_path, "-P", pool) as worker:
            worker.wait_until(lambda: runs(broker), "the first has started")
            broker.kill()
            broker.restart()
            send(broker.url, "count", range(12, 15))
            broker.client.lpush(GATE, *range(40))
            worker.wait_until(lambda: settled(broker), "all are settled")
            assert "Unrecoverable" not in worker.output()
        assert sorted(runs(broker)) == list(range(15))
