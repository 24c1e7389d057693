"""Posts that share round trips: who goes with whom, and that nobody pays for another's trouble."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from tasks.errors import BrokerDown, EmbedError, QueueFull
from tasks.ledger import Submission
from webapp.intake import TRIP_BYTES, TRIP_POSTS, Intake


def submission(name: str, size: int = 10) -> Submission:
    return Submission(name, [name], [size], [b"x" * size], "documents", "chunk", "embed")


class Redis:
    """Holds every round trip until the test lets it arrive."""

    def __init__(self) -> None:
        self.trips: list[list[str]] = []
        self._answers: list[asyncio.Future[Sequence[int | EmbedError]]] = []

    async def accept(self, submissions: Sequence[Submission]) -> Sequence[int | EmbedError]:
        self.trips.append([submission.job_id for submission in submissions])
        self._answers.append(asyncio.get_running_loop().create_future())
        return await self._answers[-1]

    def answer(self, *answers: int | EmbedError) -> None:
        self._answers[-1].set_result(answers)

    def fail(self, error: BaseException) -> None:
        self._answers[-1].set_exception(error)


Post = Callable[..., "asyncio.Task[int]"]
Scene = Callable[[Redis, Post], Awaitable[None]]


def play(scene: Scene, **options: Any) -> None:
    """Run a scene on an event loop of its own."""

    async def run() -> None:
        redis = Redis()
        intake = Intake(redis.accept, **options)
        await scene(redis, lambda *args: asyncio.create_task(intake.accept(submission(*args))))

    asyncio.run(run())


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def post_behind(redis: Redis, post: Post, *names: str) -> list["asyncio.Task[int]"]:
    """A post that is under way, and others that wait behind it."""
    first = post("first")
    await settle()
    waiting = [post(name) for name in names]
    await settle()
    assert redis.trips == [["first"]]
    return [first, *waiting]


def test_a_lone_post_leaves_at_once() -> None:
    async def scene(redis: Redis, post: Post) -> None:
        for number in (1, 2):
            alone = post("alone")
            await settle()
            redis.answer(number)
            assert await alone == number
        assert redis.trips == [["alone"], ["alone"]]

    play(scene)


def test_posts_that_arrive_meanwhile_go_together_in_their_order() -> None:
    async def scene(redis: Redis, post: Post) -> None:
        posts = await post_behind(redis, post, "a", "b", "c")
        redis.answer(1)
        await settle()
        assert redis.trips[1:] == [["a", "b", "c"]]
        redis.answer(2, 3, 4)
        assert await asyncio.gather(*posts) == [1, 2, 3, 4]

    play(scene)


def test_every_post_has_its_own_answer() -> None:
    async def scene(redis: Redis, post: Post) -> None:
        first, *others = await post_behind(redis, post, "a", "b", "c")
        redis.answer(1)
        await settle()
        redis.answer(2, QueueFull("full", retry_after_s=3), 4)
        answers = await asyncio.gather(first, *others, return_exceptions=True)
        assert [type(answer) for answer in answers] == [int, int, QueueFull, int]

    play(scene)


def test_whoever_leaves_takes_nobody_along() -> None:
    async def scene(redis: Redis, post: Post) -> None:
        first, a, b, c = await post_behind(redis, post, "a", "b", "c")
        first.cancel()
        b.cancel()
        await settle()
        redis.answer(1)
        await settle()
        assert redis.trips[1:] == [["a", "c"]]
        d = post("d")
        c.cancel()
        d.cancel()
        await settle()
        redis.answer(2, 3)
        assert await a == 2
        later = post("later")
        await settle()
        redis.answer(4)
        assert await later == 4
        assert redis.trips[2:] == [["later"]]

    play(scene)


def test_a_trip_is_bounded_in_posts_and_bytes() -> None:
    async def scene(redis: Redis, post: Post) -> None:
        large = TRIP_BYTES // 2 + 1
        posts = [post(str(number)) for number in range(TRIP_POSTS + 1)]
        posts += [post("large", large), post("larger", large), post("largest", 3 * TRIP_BYTES)]
        for expected in range(1, 5):
            await settle()
            assert len(redis.trips) == expected
            redis.answer(*range(len(redis.trips[-1])))
        await asyncio.gather(*posts)
        assert redis.trips[0] == [str(number) for number in range(TRIP_POSTS)]
        assert redis.trips[1:] == [[str(TRIP_POSTS), "large"], ["larger"], ["largest"]]

    play(scene)


@pytest.mark.parametrize("error", [BrokerDown("gone"), ValueError("a fault of ours")], ids=repr)
def test_a_failed_trip_fails_all_who_wait_and_nobody_after(error: Exception) -> None:
    async def scene(redis: Redis, post: Post) -> None:
        posts = await post_behind(redis, post, "a", "b")
        redis.fail(error)
        answers = await asyncio.gather(*posts, return_exceptions=True)
        assert [(type(answer), str(answer)) for answer in answers] == [
            (type(error), str(error))
        ] * 3
        later = post("later")
        await settle()
        redis.answer(1)
        assert await later == 1

    play(scene)


def test_a_trip_without_an_answer_ends() -> None:
    async def scene(redis: Redis, post: Post) -> None:
        posts = [post("a"), post("b")]
        for task in posts:
            with pytest.raises(BrokerDown, match="did not answer"):
                await task
        assert redis.trips == [["a", "b"]]

    play(scene, trip_s=0.01)
