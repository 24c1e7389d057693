"""Places of uploads: how many, and that no wait outlasts its client or its process."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tasks.errors import ShuttingDown, TooManyUploads, UploadSilent
from webapp.places import UploadPlaces

FOR_EVER_S = 3600.0


def test_places_are_counted() -> None:
    places = UploadPlaces(1)
    with places.take(), pytest.raises(TooManyUploads), places.take():
        pass
    with places.take():
        pass


def test_a_client_that_says_nothing_gives_its_place_up() -> None:
    async def receive() -> None:
        async with UploadPlaces(1, silence_s=0.001).receiving():
            await asyncio.Event().wait()

    with pytest.raises(UploadSilent):
        asyncio.run(receive())


async def _receive(places: UploadPlaces) -> None:
    async with places.receiving():
        await asyncio.Event().wait()


async def _pause(places: UploadPlaces) -> None:
    await places.pause(FOR_EVER_S)


@pytest.mark.parametrize("wait", [_receive, _pause])
def test_an_end_ends_all_waiting(wait: Callable[[UploadPlaces], Awaitable[None]]) -> None:
    async def scenario() -> None:
        places = UploadPlaces(1, silence_s=FOR_EVER_S)
        waiting = asyncio.ensure_future(wait(places))
        await asyncio.sleep(0)
        assert not waiting.done()
        places.close()
        places.close()
        with pytest.raises(ShuttingDown):
            await waiting
        with pytest.raises(ShuttingDown):
            await wait(places)

    asyncio.run(scenario())


def test_a_pause_passes() -> None:
    asyncio.run(UploadPlaces(1).pause(0.001))
