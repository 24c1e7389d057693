"""A private Redis and Qdrant, and workers on them that take turns.

Only `compose.tuning` imports it.

Workers that wait for their turn have loaded their model and do not consume: switching between two
takes a moment where starting one takes many seconds, so that pairs of rounds stand close together.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import httpx
import redis
from celery import Celery
from kombu.exceptions import OperationalError

from compose.errors import OutOfTime, StackError
from compose.probes import has_warm_children
from compose.sample import Work, compare
from compose.service import Service
from compose.services import PYTHON
from compose.stack import Stack
from compose.tuning.backlog import Backlog, count_settled, plan_window
from compose.tuning.gpu import GpuMeter
from compose.tuning.measurements import Round
from compose.tuning.points import Point
from compose.tuning.sizes import TURNS_BESIDE, Sizes
from compose.tuning.usage import UsageMeter, memory_bytes
from tasks.broker import redis_errors
from tasks.messages import QUEUE
from tasks.settings import Settings
from tasks.snapshot import read_queue
from tasks.statistics import Statistics, read_statistics

POLL_S = 0.01
LATENCY_POLL_S = 0.001
REPLY_S = 10.0
IDLE_S = 120.0
"""For what was begun to end; a pass of a slow model may take long."""
PUBLISHED_S = 3.0
"""Children send what they have measured once a second."""
FIRST_SECONDS = 1.0
"""Of the first round of all, while no rate is known."""


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker whose children have all loaded the model."""

    point: Point
    name: str
    pid: int
    service: Service


class Mill:
    """The stack must be entered, with Redis and Qdrant alone. Everything in them is deleted."""

    def __init__(
        self,
        stack: Stack,
        settings: Settings,
        environment: Mapping[str, str],
        texts: Sequence[str],
        gpu: GpuMeter,
        *,
        gpus: int,
    ) -> None:
        """`settings` name the stack's own servers, `environment` is that of its workers."""
        self._stack, self._settings, self._environment = stack, settings, environment
        self._texts, self._gpu = texts, gpu
        # patient: on a busy machine an answer may take longer than the web would wait for it
        self._client: redis.Redis = redis.Redis.from_url(
            settings.broker_url, socket_timeout=REPLY_S
        )
        self._control = Celery(broker=settings.broker_url, set_as_current=False).control
        self._sizes = Sizes(texts)
        self.pass_texts = self._sizes.pass_texts(settings, gpus=gpus)
        self._active: Worker | None = None
        self._started = self._collections = 0
        self._rates: dict[int, float] = {}

    def clear(self) -> None:
        """Leave nothing of an earlier run. Raises BrokerDown, StackError."""
        with redis_errors(self._settings.broker_url):
            self._client.flushall()
        try:
            url = f"{self._settings.qdrant_url}/collections"
            found = httpx.get(url, timeout=REPLY_S).raise_for_status().json()
            for collection in found["result"]["collections"]:
                httpx.delete(f"{url}/{collection['name']}", timeout=REPLY_S).raise_for_status()
        except httpx.HTTPError as error:
            raise StackError(f"the private Qdrant could not be emptied: {error}") from error

    def check(self) -> None:
        """Raises Interrupted when asked to stop, ServiceDied when a process ended by itself."""
        self._stack.check()

    def close(self) -> None:
        self._client.close()

    def start(self, point: Point, *, limit_s: float) -> Worker:
        """A worker that waits for its turn. Raises ServiceDied, StackError, Interrupted."""
        self._started += 1
        name = f"tune{self._started}@localhost"
        flags = (*point.flags(), "-n", name, "--loglevel", "WARNING")
        if self._settings.device == "mps":  # its processes must not fork
            flags += ("-P", "solo")
        service = Service(
            name=f"worker {point}",
            command=(*PYTHON, "celery", "-A", "workers", "worker", *flags),
            environment={**self._environment, **point.environment()},
            probe=has_warm_children(self._settings.broker_url),
            start_timeout_s=limit_s,
        )
        try:
            pid = self._stack.start(service)
        except StackError:
            self._stack.kill(service)
            raise
        worker = Worker(point, name, pid, service)
        self._tell(self._control.cancel_consumer, worker)
        return worker

    def kill(self, worker: Worker) -> None:
        if self._active == worker:
            self._active = None
        self._rates.pop(worker.pid, None)
        self._stack.kill(worker.service)

    def memory_bytes(self, worker: Worker) -> int:
        """Of all its processes."""
        return memory_bytes(worker.pid)

    def measure(
        self, worker: Worker, *, seconds: float, message_texts: int = 64, limit_s: float
    ) -> Round:
        """One round of about so many seconds on a steady backlog.

        Raises OutOfTime when nothing can be said within `limit_s`, Interrupted, ServiceDied, and
        StackError where the texts do not fit into the queue.
        """
        unit = worker.point.concurrency * self.pass_texts
        known = self._rates.get(worker.pid) or max(self._rates.values(), default=0.0)
        window = plan_window(unit, known, seconds if known else FIRST_SECONDS)
        window = self._sizes.fit_window(unit, window, self._settings.queue_bytes)
        self._activate(None)
        self._wait_until_idle()
        backlog = self._backlog()
        backlog.send(window + TURNS_BESIDE * unit, message_texts=message_texts)
        before = read_statistics(self._client, self._settings)
        settled = self._settled()
        deadline_s = time.monotonic() + limit_s
        self._activate(worker)
        try:
            round_ = self._watch(worker, settled, unit, window, deadline_s)
        finally:
            self._activate(None)
            backlog.drop()
        self._wait_until_idle()
        found = self._published(before, self._settled() - settled)
        backlog.forget()
        self._rates[worker.pid] = round_.rate
        calls = found.counters["model_calls"] - before.counters["model_calls"]
        tokens = found.counters["computed_tokens"] - before.counters["computed_tokens"]
        return replace(
            round_,
            work=compare(before, found),
            tokens_per_call=round(tokens / calls, 1) if calls else 0.0,
        )

    def latencies_s(self, worker: Worker, count: int) -> list[float]:
        """From a text's accept to its settling, one at a time on an idle queue."""
        self._activate(None)
        self._wait_until_idle()
        self._activate(worker)
        backlog, found = self._backlog(), []
        for _ in range(count):
            before, began_s = self._settled(), time.monotonic()
            backlog.send(1, message_texts=1)
            self._wait(lambda: self._settled() > before, IDLE_S, LATENCY_POLL_S)  # noqa: B023
            found.append(time.monotonic() - began_s)
        backlog.forget()
        return found

    def _watch(
        self, worker: Worker, settled: int, unit: int, window: int, deadline_s: float
    ) -> Round:
        """From the end of the first turn of all children to the end of the window."""
        first, first_s = self._wait_for_more(settled + unit, deadline_s)
        if first <= settled:
            raise OutOfTime(f"with {worker.point} no text was settled in time")
        meter = UsageMeter(self._roles(worker), self._gpu)
        last, last_s = self._wait_for_more(settled + unit + window, deadline_s)
        if last <= first:
            raise OutOfTime(f"with {worker.point} too few texts were settled in time")
        queue = read_queue(self._client, self._settings)
        return Round(
            texts=last - first,
            seconds=last_s - first_s,
            usage=meter.read(),
            work=_NO_WORK,
            tokens_per_call=0.0,
            queued=queue.waiting + queue.reserved,
        )

    def _wait_for_more(self, wanted: int, deadline_s: float) -> tuple[int, float]:
        """How many were settled when it was so many or time was up, and when the last were."""
        found, at_s = self._settled(), time.monotonic()
        while found < wanted and time.monotonic() < deadline_s:
            self._stack.check()
            time.sleep(POLL_S)
            settled = self._settled()
            if settled > found:
                found, at_s = settled, time.monotonic()
        return found, at_s

    def _roles(self, worker: Worker) -> dict[str, int]:
        servers = {name: int(entry["pid"]) for name, entry in self._stack.entries.items()}
        return {"worker": worker.pid, **servers}

    def _activate(self, worker: Worker | None) -> None:
        """Let this one consume, and no other."""
        if self._active is not None and self._active != worker:
            self._tell(self._control.cancel_consumer, self._active)
        if worker is not None and self._active != worker:
            self._tell(self._control.add_consumer, worker)
        self._active = worker

    def _tell(self, command: Callable[..., object], worker: Worker) -> None:
        deadline_s = time.monotonic() + IDLE_S
        try:
            while not command(QUEUE, destination=[worker.name], reply=True, timeout=REPLY_S):
                self._stack.check()
                if time.monotonic() > deadline_s:
                    raise StackError(f"the worker {worker.point} does not answer")
        except OperationalError as error:
            raise StackError(f"the private Redis does not answer: {error}") from error

    def _backlog(self) -> Backlog:
        self._collections += 1
        name = f"tune-{self._collections}"
        return Backlog(self._client, self._settings, self._texts, name)

    def _settled(self) -> int:
        return count_settled(self._client, self._settings)

    def _wait_until_idle(self) -> None:
        def idle() -> bool:
            queue = read_queue(self._client, self._settings)
            return not queue.outstanding + queue.waiting + queue.reserved

        self._wait(idle, IDLE_S, POLL_S)

    def _published(self, before: Statistics, texts: int) -> Statistics:
        """The sums, when they hold all texts of a round; a killed child's last second is lost, so
        at the latest after some seconds."""
        deadline_s = time.monotonic() + PUBLISHED_S
        while True:
            found = read_statistics(self._client, self._settings)
            complete = found.counters["texts"] - before.counters["texts"] >= texts
            if complete or time.monotonic() > deadline_s:
                return found
            self._stack.check()
            time.sleep(POLL_S)

    def _wait(self, condition: Callable[[], bool], limit_s: float, poll_s: float) -> None:
        deadline_s = time.monotonic() + limit_s
        while not condition():
            self._stack.check()
            if time.monotonic() > deadline_s:
                raise OutOfTime(f"the workers did not end their work within {limit_s:.0f} s")
            time.sleep(poll_s)


_NO_WORK = Work(0, 0.0, {}, 0.0)
