"""What others say of the queue, and what Redis says at the same time, to be compared."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx
import redis
from prometheus_client.parser import text_string_to_metric_families

from tasks.settings import Settings
from tasks.snapshot import read_queue
from tasks.statistics import read_statistics

NUMBERS = {
    "waiting": "waiting_messages",
    "reserved": "reserved_messages",
    "outstanding": "outstanding_texts",
    "outstanding_bytes": "outstanding_bytes",
    "accepted": "accepted_texts_total",
    "done": "done_texts_total",
    "failed": "failed_texts_total",
    "cancelled": "cancelled_texts_total",
    "redelivered": "redelivered_messages_total",
    "refused_requests": "refused_requests_total",
    "dead_letters": "dead_letters_kept",
}
"""As `embedmill watch --json` calls them, and `/metrics` behind `embedmill_`."""
COUNTS = ("accepted", "done", "failed", "cancelled", "redelivered", "refused_requests")
"""Those that only grow."""


@dataclass(frozen=True, slots=True)
class Look:
    """Numbers as they were at some moment between the two times; the pids of pool children."""

    began_s: float
    ended_s: float
    numbers: Mapping[str, float]
    pids: frozenset[int]


def look_at_redis(client: redis.Redis, settings: Settings) -> Look:
    began_s = time.time()
    queue, statistics = read_queue(client, settings), read_statistics(client, settings)
    numbers = {name: getattr(queue, name, 0) for name in list(NUMBERS)[:4]}
    numbers |= {name: queue.totals[name] for name in list(NUMBERS)[4:9]}
    numbers |= {"refused_requests": queue.totals["refusals"]}
    numbers |= {"dead_letters": statistics.dead_letters}
    return Look(
        began_s, time.time(), numbers, frozenset(child.pid for child in statistics.children)
    )


def read_watch(lines: str) -> list[Look]:
    """The whole lines of `embedmill watch --json`, which looks as soon as it has noted the time."""
    rows: list[dict[str, Any]] = [
        json.loads(line) for line in lines.splitlines(keepends=True) if line.endswith("\n")
    ]
    return [
        Look(
            row["at"],
            row["at"],
            {name: row[name] for name in NUMBERS},
            frozenset(process["pid"] for process in row["processes"]),
        )
        for row in rows
        if "error" not in row
    ]


def look_at_metrics(url: str) -> Look:
    began_s = time.time()
    text = httpx.get(f"{url}/metrics").raise_for_status().text
    ended_s = time.time()
    samples = [
        sample for family in text_string_to_metric_families(text) for sample in family.samples
    ]
    found = {sample.name: sample.value for sample in samples if not sample.labels}
    numbers = {name: found[f"embedmill_{shown}"] for name, shown in NUMBERS.items()}
    pids = {
        int(sample.labels["pid"])
        for sample in samples
        if sample.name == "embedmill_child_last_pass_texts"
    }
    return Look(began_s, ended_s, numbers, frozenset(pids))


class Watcher:
    """Looks again and again in a thread, until the block ends."""

    def __init__(self, look: Callable[[], Look], interval_s: float) -> None:
        self.looks: list[Look] = []
        self._look, self._interval_s = look, interval_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.is_set():
            self.looks.append(self._look())
            self._ended.wait(self._interval_s)


def disagreements(looks: Sequence[Look], truth: Sequence[Look], refresh_s: float) -> Iterator[str]:
    """Every count that Redis did not have within a refresh of the look, and every pid.

    Counts only grow, so that what Redis had between two looks is known. What goes up and down is
    tied to them, or can be compared while nothing moves.
    """
    for look in looks:
        near = [true for true in truth if _is_near(look, true, refresh_s)]
        if not near:
            continue  # before the first, or after the last
        for name in COUNTS:
            known = [true.numbers[name] for true in near]
            if not min(known) <= look.numbers[name] <= max(known):
                yield f"{name} was {look.numbers[name]}, Redis had {min(known)} to {max(known)}"
        if not look.pids <= frozenset().union(*(true.pids for true in near)):
            yield f"pids {sorted(look.pids)}, Redis had {[sorted(true.pids) for true in near]}"
        settled = sum(look.numbers[name] for name in ("done", "failed", "cancelled"))
        if look.numbers["outstanding"] != look.numbers["accepted"] - settled:
            yield f"the numbers are not of one moment: {dict(look.numbers)}"


def _is_near(look: Look, true: Look, refresh_s: float) -> bool:
    return look.began_s - refresh_s <= true.ended_s and true.began_s <= look.ended_s + refresh_s
