"""Streams of events: one reader for all of them, a place for each, and none outlives its client."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest
from starlette.types import Message

from tasks.errors import BrokerDown, EmbedError, JobNotFound, TooManyStreams
from tasks.snapshot import JobSnapshot
from webapp.events import EventStream, JobStreams

FOR_EVER_S = 60.0
JOB = JobSnapshot(
    job_id="a",
    state="open",
    collection="c",
    model="m",
    accepted=9,
    done=0,
    failed=0,
    cancelled=0,
    chunked=0,
    truncated=0,
    unchanged=0,
    points=0,
    rate_per_s=0.0,
    eta_s=None,
    created_at=0.0,
    settled_at=None,
    errors=[],
)


def job(name: str = "a", **changes: Any) -> JobSnapshot:
    return replace(JOB, job_id=name, **changes)


class Ledger:
    """Jobs as a test says they are; counts how often it is asked, and for what."""

    def __init__(self, *jobs: JobSnapshot) -> None:
        self.jobs: dict[str, JobSnapshot | EmbedError] = {one.job_id: one for one in jobs}
        self.asked: list[list[str]] = []

    async def read(self, job_ids: Sequence[str]) -> list[JobSnapshot | None]:
        self.asked.append(sorted(job_ids))
        found = [self.jobs.get(job_id) for job_id in job_ids]
        for one in found:
            if isinstance(one, EmbedError):
                raise one
        return [one for one in found if not isinstance(one, EmbedError)]


class Client:
    """The other side of a stream."""

    def __init__(self, streams: JobStreams, job_id: str = "a") -> None:
        self.sent: list[Message] = []
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._messages.put_nowait({"type": "http.request", "body": b"", "more_body": False})
        stream = EventStream(streams, job_id)
        self.task = asyncio.create_task(stream({}, self._messages.get, self._take))

    async def _take(self, message: Message) -> None:
        self.sent.append(message)

    def hang_up(self) -> None:
        self._messages.put_nowait({"type": "http.disconnect"})

    @property
    def body(self) -> str:
        return b"".join(message.get("body", b"") for message in self.sent).decode()

    @property
    def done(self) -> list[int]:
        """Of each event."""
        return [orjson.loads(data)["done"] for data in re.findall(r"data: (.*)\n\n", self.body)]

    async def sees(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110  # a turn of the loop is what it waits for
                await asyncio.sleep(0)

    async def end(self) -> None:
        async with asyncio.timeout(10):
            await self.task


def play(scene: Callable[[Ledger, JobStreams], Awaitable[None]], **options: Any) -> None:
    async def run() -> None:
        ledger = Ledger(JOB, job("b"))
        settings = {"read_s": 0.0, "heartbeat_s": FOR_EVER_S} | options
        await scene(ledger, JobStreams(ledger.read, **settings))

    asyncio.run(run())


def test_a_stream_says_what_is_new_and_ends_when_it_is_settled() -> None:
    async def scene(ledger: Ledger, streams: JobStreams) -> None:
        client = Client(streams)
        await client.sees(lambda: client.done == [0])
        ledger.jobs["a"] = job(rate_per_s=5.0)  # no news
        asked = len(ledger.asked)
        await client.sees(lambda: len(ledger.asked) > asked + 2)
        ledger.jobs["a"] = job(done=4)
        await client.sees(lambda: client.done == [0, 4])
        ledger.jobs["a"] = job(done=9, state="done")
        await client.end()
        assert client.done == [0, 4, 9]
        assert client.body.count("id: settled\n") == 1
        assert client.sent[0]["headers"][0] == (
            b"content-type",
            b"text/event-stream; charset=utf-8",
        )

    play(scene)


def test_all_streams_share_one_reader_that_stops_with_the_last() -> None:
    async def scene(ledger: Ledger, streams: JobStreams) -> None:
        clients = [Client(streams, name) for name in "aabb"]
        for client in clients:
            await client.sees(lambda: client.done)  # noqa: B023  # it is awaited here
        ledger.asked.clear()
        await clients[0].sees(lambda: len(ledger.asked) == 3)
        assert ledger.asked == [["a", "b"]] * 3
        for client in clients:
            client.hang_up()
            await client.end()
        ledger.asked.clear()
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(ledger.asked) <= 1

    play(scene)


def test_silence_is_filled_with_heartbeats() -> None:
    async def scene(ledger: Ledger, streams: JobStreams) -> None:
        client = Client(streams)
        await client.sees(lambda: client.body.count(":\n\n") >= 2)
        assert client.done == [0]
        client.hang_up()
        await client.end()

    play(scene, heartbeat_s=0.001)


def test_places_are_bounded_and_a_client_that_hangs_up_frees_its_own() -> None:
    async def scene(ledger: Ledger, streams: JobStreams) -> None:
        first = Client(streams)
        await first.sees(lambda: first.done)
        second = Client(streams)
        with pytest.raises(TooManyStreams):
            await second.end()
        assert second.sent == []
        first.hang_up()
        await first.end()
        third = Client(streams)
        await third.sees(lambda: third.done)
        third.hang_up()
        await third.end()

    play(scene, most=1)


def test_an_unknown_job_is_refused_before_anything_is_sent() -> None:
    async def scene(ledger: Ledger, streams: JobStreams) -> None:
        client = Client(streams, "nobody")
        with pytest.raises(JobNotFound):
            await client.end()
        assert client.sent == []
        follower = Client(streams)  # the place is free again
        await follower.sees(lambda: follower.done)
        ledger.jobs.pop("a")  # its record has expired
        await follower.end()

    play(scene, most=1)


def test_streams_outlive_a_redis_that_is_away() -> None:
    async def scene(ledger: Ledger, streams: JobStreams) -> None:
        client = Client(streams)
        await client.sees(lambda: client.done)
        ledger.jobs["a"] = BrokerDown("away")
        asked = len(ledger.asked)
        await client.sees(lambda: len(ledger.asked) > asked + 2)
        ledger.jobs["a"] = job(done=9, state="done")
        await client.end()
        assert client.done == [0, 9]

    play(scene)


def test_a_process_that_ends_ends_its_streams() -> None:
    async def scene(ledger: Ledger, streams: JobStreams) -> None:
        client = Client(streams)
        await client.sees(lambda: client.done)
        streams.close()
        await client.end()
        assert "settled" not in client.body.partition("data")[0]
        late = Client(streams)
        with pytest.raises(TooManyStreams):
            await late.end()

    play(scene, read_s=FOR_EVER_S)
