"""Concurrent posts of a process share round trips to Redis. Used inside `webapp` only.

A post that finds nothing under way leaves at once; those that arrive meanwhile go together with
the next round trip, in the order of their arrival. There is no timer, and what waits is bounded by
the number of open requests. With `appendfsync always` a round trip costs Redis one write to disk,
however many posts it carries.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import TypeAlias

from tasks.errors import BrokerDown, EmbedError
from tasks.ledger import Submission

TRIP_POSTS = 256
"""Posts of one round trip at most: Redis serves nobody else meanwhile."""
TRIP_BYTES = 4 * 1024 * 1024
"""Bytes of one round trip at most, unless a single post has more."""
TRIP_S = 1.8
"""A round trip ends after this many seconds, with an answer or without."""

Accept = Callable[[Sequence[Submission]], Awaitable[Sequence[int | EmbedError]]]
"""One round trip: an answer for each submission, or BrokerDown for all."""
_Trip: TypeAlias = "asyncio.Task[Sequence[int | EmbedError]]"


@dataclass(frozen=True, slots=True)
class _Post:
    submission: Submission
    answer: "asyncio.Future[int]"

    @property
    def size(self) -> int:
        return sum(map(len, self.submission.envelopes))


class Intake:
    """The one way of an event loop's posts into the ledger."""

    def __init__(self, accept: Accept, *, trip_s: float = TRIP_S) -> None:
        self._accept, self._trip_s = accept, trip_s
        self._waiting: deque[_Post] = deque()
        self._aboard: list[_Post] = []
        self._trip: _Trip | None = None

    async def accept(self, submission: Submission) -> int:
        """The job's first acceptance number. Raises QueueFull, ModelMismatch, BrokerDown."""
        post = _Post(submission, asyncio.get_running_loop().create_future())
        self._waiting.append(post)
        self._leave()
        return await post.answer

    def _leave(self) -> None:
        """Begin a trip unless there is one, or nobody waits."""
        if self._trip is None and self._waiting:
            self._trip = asyncio.create_task(self._travel())
            self._trip.add_done_callback(self._arrive)

    async def _travel(self) -> Sequence[int | EmbedError]:
        self._aboard = self._board()
        try:
            async with asyncio.timeout(self._trip_s):
                submissions = [post.submission for post in self._aboard]
                return await self._accept(submissions) if submissions else []
        except TimeoutError as error:
            raise BrokerDown(f"Redis did not answer within {self._trip_s} s") from error

    def _board(self) -> list[_Post]:
        """The next posts; whoever was cancelled while waiting stays behind."""
        posts: list[_Post] = []
        size = 0
        while self._waiting and len(posts) < TRIP_POSTS:
            if not self._waiting[0].answer.done():
                size += self._waiting[0].size
                if posts and size > TRIP_BYTES:
                    break
                posts.append(self._waiting[0])
            self._waiting.popleft()
        return posts

    def _arrive(self, trip: _Trip) -> None:
        """The next trip leaves before the answers are given out: Redis works meanwhile."""
        posts, self._aboard, self._trip = self._aboard, [], None
        answers: Sequence[int | BaseException]
        if error := _failure(trip):
            posts += self._waiting  # another trip would only make them wait as long again
            self._waiting.clear()
            answers = [error] * len(posts)
        else:
            answers = trip.result()
        self._leave()
        for post, answer in zip(posts, answers, strict=True):
            if post.answer.done():
                continue  # its client is gone; the job is accepted all the same
            if isinstance(answer, BaseException):
                post.answer.set_exception(_own(answer))
            else:
                post.answer.set_result(answer)


def _failure(trip: _Trip) -> BaseException | None:
    return BrokerDown("this process is ending") if trip.cancelled() else trip.exception()


def _own(error: BaseException) -> BaseException:
    """One for each post: a raised error collects the frames of whoever raises it."""
    return copy(error) if isinstance(error, EmbedError) else error
