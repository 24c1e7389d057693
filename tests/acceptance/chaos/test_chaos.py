"""Nothing is lost and nothing counted twice, whatever is killed.

The short run belongs to the ordinary tests; `make chaos` is the long one. CHAOS_SEED repeats a
run's plan; its moments depend on the machine.
"""

import os
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from random import Random, SystemRandom

import pytest

from tests.acceptance.chaos.books import Books
from tests.acceptance.chaos.parcels import pack_parcels
from tests.acceptance.chaos.senders import Senders
from tests.acceptance.chaos.slow_disk import slow_disk_env
from tests.acceptance.chaos.stack import Stack, whole_stack
from tests.acceptance.chaos.storm import Storm, Victim, plan_strikes
from tests.processes import wait_until

CLIENTS = 4
SHORT = {Victim.CHILD: 8, Victim.WORKER: 3, Victim.WEB: 2, Victim.REDIS: 2, Victim.STORE: 2}
LONG = {Victim.CHILD: 40, Victim.WORKER: 15, Victim.WEB: 5, Victim.REDIS: 5, Victim.STORE: 5}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_short_storm_loses_nothing(tmp_path: Path) -> None:
    with whole_stack(tmp_path) as stack:
        weather(stack, documents=1_500, kills=SHORT, timeout_s=240, revised=0.05)


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_a_long_storm_loses_nothing(tmp_path: Path) -> None:
    with whole_stack(tmp_path) as stack:
        weather(stack, documents=10_000, kills=LONG, timeout_s=1500, revised=0.05)


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_a_storm_over_a_slow_disk_loses_nothing(tmp_path: Path) -> None:
    """What Redis has acknowledged it has, however long its disk takes."""
    with whole_stack(tmp_path, redis_env=slow_disk_env(tmp_path)) as stack:
        weather(stack, documents=10_000, kills=LONG, timeout_s=1500, revised=0.05)


def weather(
    stack: Stack,
    *,
    documents: int,
    kills: Mapping[Victim, int],
    timeout_s: float,
    revised: float = 0,
) -> None:
    """Send documents through a storm, a share of them twice with another text, and see that the
    books agree."""
    seed = int(os.environ.get("CHAOS_SEED") or SystemRandom().randrange(10**6))
    print(f"CHAOS_SEED={seed}")
    chance, started = Random(seed), time.monotonic()
    parcels = pack_parcels(documents, chance)
    strikes = plan_strikes(kills, documents, chance)
    storm = Storm(stack, chance)
    with Senders(stack.web.url, parcels, Random(seed), clients=CLIENTS, revised=revised) as senders:
        storm.rage(strikes, timeout_s=timeout_s)
        ended = time.monotonic()
        wait_until(lambda: storm.watch() and senders.done(), "all is accepted", timeout_s=300)
        calm(stack, storm)
    books = Books(stack, senders.post.receipts)
    report(storm, senders, books, time.monotonic() - started, time.monotonic() - ended)
    stack.wait_for_orphans()
    assert len(books.promises) == documents
    differences = books.differences(in_order=revised > 0)
    assert not differences, "\n".join(differences)


def calm(stack: Stack, storm: Storm) -> None:
    """Until nothing is outstanding and nobody holds a message, or two minutes have passed: then
    the books say what is missing."""
    client = stack.redis.client

    def settled() -> bool:
        storm.watch()
        texts = int(client.hget("embedmill:outstanding", "texts") or 0)
        return not (texts or client.llen("embed") or client.hlen("unacked"))

    try:
        wait_until(settled, "all is settled", timeout_s=120)
    except AssertionError as error:
        print(error)


def report(storm: Storm, senders: Senders, books: Books, whole_s: float, after_s: float) -> None:
    """What happened, for people."""
    kills = {str(victim): count for victim, count in storm.kills.items()}
    print(f"kills: {kills}; {whole_s:.0f} s, {after_s:.0f} s of them after the last")
    print(f"answers to clients: {dict(senders.post.answers)}")
    print("ended by themselves:", *storm.revived, sep="\n")
    messages, received = books.messages, books.deliveries()
    print(f"messages: {messages}, delivered {received} times; accepted twice: {books.duplicates}")
    for victim in Victim:
        times = [seconds for seconds, struck in storm.recoveries_s if struck is victim]
        if times:
            middle, worst = statistics.median(times), max(times)
            print(f"work went on after {victim}: median {middle:.1f} s, worst {worst:.1f} s")
