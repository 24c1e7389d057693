"""A job's progress as server-sent events. Used inside `webapp` only.

All streams of a process share one reader, which asks Redis for all jobs that are followed in one
round trip. A stream holds the newest state of its job and nothing else, however slow its client.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tasks.errors import BrokerDown, JobNotFound, TooManyStreams
from tasks.snapshot import JobSnapshot

MOST_STREAMS = 256
"""Of a process; one more is refused."""
READ_S = 0.5
"""Between two readings of what is followed."""
HEARTBEAT_S = 15.0
"""Silence after which a comment is sent, so that no proxy takes the stream for dead."""
SETTLED = "settled"
"""The id of a stream's last event. A browser that comes back with it is told to stay away."""

Read = Callable[[Sequence[str]], Awaitable[Sequence[JobSnapshot | None]]]
"""The jobs with these ids; None where there is none. Raises BrokerDown, JobNotFound."""

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would keep events back
]
_HEARTBEAT = b":\n\n"


class Follower:
    """One stream's end of it: the newest state that it has not sent."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self.ended = False
        self._news = asyncio.Event()
        self._seen: JobSnapshot | None = None

    def tell(self, job: JobSnapshot) -> None:
        """What is no news is not sent: time alone changes rate and ETA."""
        if self._seen is None or _counts(job) != _counts(self._seen):
            self._seen = job
            self._news.set()

    def end(self) -> None:
        """The client is gone, or this process ends, or the job's record is."""
        self.ended = True
        self._news.set()

    @property
    def begun(self) -> bool:
        """Whether its job has been there."""
        return self._seen is not None

    async def next(self, patience_s: float) -> JobSnapshot | None:
        """The newest state once there is one, or when it ended; None after `patience_s`."""
        try:
            async with asyncio.timeout(patience_s):
                await self._news.wait()
        except TimeoutError:
            return None
        self._news.clear()
        return self._seen


class JobStreams:
    """The streams of a process, and the one reader that feeds them."""

    def __init__(
        self,
        read: Read,
        *,
        most: int = MOST_STREAMS,
        read_s: float = READ_S,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        self.heartbeat_s = heartbeat_s
        self._read, self._most, self._read_s = read, most, read_s
        self._followers: set[Follower] = set()
        self._reading: asyncio.Task[None] | None = None
        self._closed = False

    @contextmanager
    def join(self, job_id: str) -> Iterator[Follower]:
        """Take a place for the block. Raises TooManyStreams."""
        if self._closed or len(self._followers) >= self._most:
            raise TooManyStreams(f"this process serves {self._most} streams at most")
        follower = Follower(job_id)
        self._followers.add(follower)
        try:
            yield follower
        finally:
            self._followers.remove(follower)

    async def begin(self, follower: Follower) -> None:
        """Tell it the job's state now, and from now on. Raises JobNotFound, BrokerDown."""
        (job,) = await self._read([follower.job_id])
        if job is None:
            raise JobNotFound(f"there is no job {follower.job_id[:64]!r}")
        follower.tell(job)
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._keep_reading())

    def close(self) -> None:
        """End all streams: the server waits for them before it ends."""
        self._closed = True
        for follower in self._followers:
            follower.end()
        if self._reading is not None:
            self._reading.cancel()

    async def _keep_reading(self) -> None:
        while self._followers:
            await asyncio.sleep(self._read_s)
            wanted = list({follower.job_id for follower in self._followers if follower.begun})
            try:
                found = dict(zip(wanted, await self._read(wanted), strict=True))
            except BrokerDown:
                continue  # streams go on when Redis does
            for follower in self._followers:
                self._tell(follower, found)

    @staticmethod
    def _tell(follower: Follower, found: dict[str, JobSnapshot | None]) -> None:
        if follower.job_id in found:  # else it has come meanwhile
            job = found[follower.job_id]
            follower.end() if job is None else follower.tell(job)


class EventStream(Response):
    """Sends a job's events until it is settled, or its client hangs up."""

    media_type = "text/event-stream"

    def __init__(self, streams: JobStreams, job_id: str) -> None:
        super().__init__()
        self._streams, self._job_id = streams, job_id

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        """Raises, before anything is sent, TooManyStreams, JobNotFound, BrokerDown."""
        with self._streams.join(self._job_id) as follower:
            await self._streams.begin(follower)
            gone = asyncio.create_task(_until_gone(receive))
            gone.add_done_callback(lambda _: follower.end())
            try:
                await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
                await self._send_events(follower, send)
                await send({"type": "http.response.body", "body": b""})
            finally:
                gone.cancel()

    async def _send_events(self, follower: Follower, send: Send) -> None:
        while True:
            job = await follower.next(self._streams.heartbeat_s)
            if follower.ended:
                return
            event = _HEARTBEAT if job is None else _event(job)
            await send({"type": "http.response.body", "body": event, "more_body": True})
            if job is not None and job.state != "open":
                return


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _event(job: JobSnapshot) -> bytes:
    mark = f"id: {SETTLED}\n".encode() if job.state != "open" else b""
    return b"%bdata: %b\n\n" % (mark, orjson.dumps(asdict(job)))


def _counts(job: JobSnapshot) -> tuple[object, ...]:
    return job.state, job.accepted, job.done, job.failed, job.cancelled, job.points
