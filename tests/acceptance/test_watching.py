"""What watching shows is what is there, also while children die; and it costs next to nothing."""

import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from random import Random

import psutil
import pytest

from tasks.presence import workers
from tests.acceptance.chaos.stack import CHILDREN, WORKERS, Stack, read_settled, whole_stack
from tests.acceptance.looking import (
    Look,
    Watcher,
    disagreements,
    look_at_metrics,
    look_at_redis,
    read_watch,
)
from tests.processes import Program, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

EMBEDMILL = str(Path(sys.executable).parent / "embedmill")
REFRESH_S = 1.0
KILLS = 10
TEXTS_BETWEEN = 100
COST_S = 20.0


@contextmanager
def embedmill(folder: Path, stack: Stack, *arguments: str) -> Iterator[Program]:
    env = {"EMBED_BROKER_URL": stack.redis.url}
    program = Program([EMBEDMILL, *arguments], log=folder / f"{arguments[0]}.log", env=env)
    try:
        yield program
    finally:
        program.stop()


def load_of(stack: Stack) -> Sequence[str]:
    return ("loadtest", "--url", stack.web.url, "--rate", "25", "--texts", "8", "--duration", "900")


def test_watch_and_metrics_show_what_redis_has_while_children_are_killed(tmp_path: Path) -> None:
    with whole_stack(tmp_path, EMBED_PREFETCH_MULTIPLIER="4") as stack:
        with (
            embedmill(tmp_path, stack, "watch", "--json") as watch,
            embedmill(tmp_path, stack, *load_of(stack)) as load,
            Watcher(lambda: look(stack), 0.05) as truth,
            Watcher(lambda: look_at_metrics(stack.web.url), REFRESH_S) as scraped,
        ):
            kill_children(stack, Random(6))
            with standing_still(stack):
                load.send(signal.SIGINT)
                load.wait()
                held = show_the_same(stack, watch, scraped)
            wait_until(lambda: not outstanding(stack), "rest", timeout_s=90)
            wait_until(
                lambda: shown_pids(watch, scraped) <= child_pids(stack), "no dead child is shown"
            )
            rest = show_the_same(stack, watch, scraped)
        shown = [*read_watch(watch.output()), *scraped.looks]
        print(f"compared {len(shown)} lines and scrapes, {rest}")
        found = list(disagreements(shown, truth.looks, REFRESH_S))
        assert not found, "\n".join(found[:20])
        assert held["reserved"] * held["waiting"] * held["outstanding_bytes"] > 0
        assert rest["redelivered"] > 0
        stack.wait_for_orphans()


def look(stack: Stack) -> Look:
    return look_at_redis(stack.redis.client, stack.settings)


def outstanding(stack: Stack) -> float:
    return look(stack).numbers["outstanding"]


def show_the_same(stack: Stack, watch: Program, scraped: Watcher) -> Mapping[str, float]:
    """While nothing moves, every number is Redis' own."""
    lines, scrapes = len(read_watch(watch.output())), len(scraped.looks)
    wait_until(
        lambda: len(read_watch(watch.output())) > lines + 1 and len(scraped.looks) > scrapes + 1,
        "both have looked again",
    )
    numbers = look(stack).numbers
    assert read_watch(watch.output())[-1].numbers == numbers
    assert scraped.looks[-1].numbers == numbers
    return numbers


@contextmanager
def standing_still(stack: Stack) -> Iterator[None]:
    """No worker does anything for the block, once the queue has filled up behind them."""
    wait_until(lambda: all_warm(stack), "the killed ones have successors", timeout_s=90)
    mains = [psutil.Process(worker.program.pid) for worker in stack.workers]
    family = [*mains, *(child for main in mains for child in main.children())]
    for process in family:
        process.suspend()
    try:
        wait_until(lambda: stack.redis.client.llen("embed"), "messages wait")
        yield
    finally:
        for process in family:
            process.resume()


def shown_pids(watch: Program, scraped: Watcher) -> frozenset[int]:
    """What was shown last."""
    return read_watch(watch.output())[-1].pids | scraped.looks[-1].pids


def child_pids(stack: Stack) -> frozenset[int]:
    return frozenset(child.pid for worker in stack.workers for child in worker.children())


def kill_children(stack: Stack, chance: Random) -> None:
    """Each after some more work, and one worker's main process among them."""
    for number in range(KILLS):
        aim = (read_settled(stack.redis.client) or 0) + TEXTS_BETWEEN
        wait_until(partial(has_settled, stack, aim), "work goes on", timeout_s=90)
        if number == KILLS // 2:
            stack.kill_worker(chance)
        else:
            wait_until(lambda: stack.kill_child(chance), "there is a child")


def all_warm(stack: Stack) -> bool:
    """All children of the workers that run now; those that ended are started again."""
    stack.revive()
    mains = {worker.program.pid for worker in stack.workers}
    found = workers(stack.redis.client)
    return sum(worker.warm for worker in found if worker.pid in mains) == WORKERS * CHILDREN


def has_settled(stack: Stack, count: int) -> bool:
    stack.revive()
    return (read_settled(stack.redis.client) or 0) >= count


def test_watching_costs_less_than_a_fiftieth_of_a_core(tmp_path: Path) -> None:
    """What the watcher takes itself, and what the servers that it asks take more than without."""
    with whole_stack(tmp_path) as stack:
        servers = [stack.web.program.pid, stack.redis.program.pid]
        idle = share(servers)
        with embedmill(tmp_path, stack, "watch", "--json") as watch:
            wait_until(lambda: read_watch(watch.output()), "it has looked")
            lines = share([*servers, watch.pid]) - idle
        with on_a_terminal(stack) as pid:
            panel = share([*servers, pid]) - idle
        with Watcher(lambda: look_at_metrics(stack.web.url), REFRESH_S):
            scraping = share(servers) - idle
    costs = {"lines": lines, "panel": panel, "scraping": scraping}
    print({name: f"{cost:.2%} of a core" for name, cost in costs.items()})
    assert all(cost < 0.02 for cost in costs.values()), costs


def share(pids: Sequence[int]) -> float:
    """Of a core, that these processes take over a while."""
    processes = [psutil.Process(pid) for pid in pids]
    before_s, began_s = cpu_s(processes), time.monotonic()
    threading.Event().wait(COST_S)
    return (cpu_s(processes) - before_s) / (time.monotonic() - began_s)


def cpu_s(processes: Sequence[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


@contextmanager
def on_a_terminal(stack: Stack) -> Iterator[int]:
    """`embedmill watch` as it is drawn for people, once it has drawn; its pid."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "EMBED_BROKER_URL": stack.redis.url, "TERM": "xterm", "COLUMNS": "100"}
    argv = [EMBEDMILL, "watch"]
    drawn = threading.Event()

    def read() -> None:
        with suppress(OSError):  # its end, when the other side is closed
            while data := os.read(ours, 65536):
                if b"outstanding" in data:
                    drawn.set()

    with subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, env=env) as watch:
        os.close(theirs)
        reader = threading.Thread(target=read)
        reader.start()
        try:
            assert drawn.wait(60)
            yield watch.pid
        finally:
            watch.terminate()
            watch.wait(30)
            reader.join()
            os.close(ours)
