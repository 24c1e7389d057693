"""Real workers say what they do; a child that is killed takes its series with it, not its work."""

from pathlib import Path

from tasks.client import submit
from tasks.settings import get_settings
from tasks.statistics import Statistics, read_statistics
from tests.processes import wait_until
from tests.redis_server import RedisServer
from tests.worker import local_worker

TIMEOUT_S = 60


def statistics(broker: RedisServer) -> Statistics:
    return read_statistics(broker.client, get_settings())


def pids(broker: RedisServer) -> set[int]:
    return {child.pid for child in statistics(broker).children}


def test_what_children_measure_outlives_them(
    stack_env: dict[str, str], broker: RedisServer, tmp_path: Path
) -> None:
    with local_worker(tmp_path, stack_env) as worker:
        before = {child.pid for child in worker.children()}
        wait_until(lambda: pids(broker) == before, "each child says that it is there")
        submit([f"text {number}" for number in range(500)]).wait(TIMEOUT_S)
        wait_until(lambda: statistics(broker).counters["texts"] == 500, "all passes are summed up")
        assert statistics(broker).histograms["encode"].sum > 0
        victim = worker.children()[0]
        victim.kill()
        wait_until(lambda: victim.pid not in pids(broker), "the dead child's series are gone")
        wait_until(lambda: len(pids(broker)) == 2, "the next child says that it is there")
        assert statistics(broker).counters["texts"] == 500
    assert pids(broker) == set()
