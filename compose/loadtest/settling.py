"""When accepted jobs were settled: the ledger has noted both moments, so it can be asked later."""

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus

from compose.loadtest.connection import Reply, Unanswered
from compose.loadtest.latencies import Latencies
from compose.loadtest.loops import Carrier
from compose.loadtest.tally import read_object
from webapp.schemas import JobOut

OPEN_JOBS = 1000
"""Followed at the same time; what is accepted meanwhile is not followed."""
POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class _Job:
    id: str
    answer_s: float


class Settling:
    """Jobs from their acceptance to their last document's outcome; asks over one connection."""

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._open: deque[_Job] = deque()
        self._none_open = asyncio.Event()
        self.latencies = Latencies()
        """From when the request should have been sent. The answer's whole latency is part of it,
        although the job was in the ledger before the answer was here."""
        self.failed_texts = 0
        self.unknown = 0
        """Jobs that the web does not know any more."""

    @property
    def unsettled(self) -> int:
        """Followed jobs that are still open."""
        return len(self._open)

    def add(self, reply: Reply, answer_s: float) -> None:
        """One more accepted job, if there is room for it."""
        if len(self._open) < OPEN_JOBS:
            self._none_open.clear()
            self._open.append(_Job(str(read_object(reply).get("job_id")), answer_s))

    async def follow(self) -> None:
        """For ever; the oldest first, because jobs settle about in their order."""
        while True:
            if not self._open:
                self._none_open.set()
            if not self._open or not await self._look(self._open[0]):
                await asyncio.sleep(POLL_S)

    async def wait(self, seconds: float) -> None:
        """Until all are settled, or so long, while something follows them."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._none_open.wait(), seconds)

    async def _look(self, job: _Job) -> bool:
        """Whether anything more can be known of it."""
        try:
            reply = await self._carrier.ask("GET", f"/jobs/{job.id}")
        except Unanswered:
            return False
        if not reply.succeeded and reply.status != HTTPStatus.NOT_FOUND:
            return False
        view = JobOut.model_validate_json(reply.body) if reply.succeeded else None
        if view is not None and view.settled_at is None:
            return False
        self._open.popleft()
        if view is None or view.settled_at is None:
            self.unknown += 1
        else:
            self.failed_texts += view.failed
            self.latencies.record(job.answer_s + view.settled_at - view.created_at)
        return True
