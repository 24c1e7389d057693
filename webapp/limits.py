"""What the API key of a request may send: texts a minute, and bytes. Used inside `webapp` only."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import Request

from tasks.errors import BrokerDown, EmbedError, RequestRepeated
from tasks.ledger import run_async
from tasks.rates import charge, give_back
from webapp.keyring import Key
from webapp.state import Resources

REQUEST_KEY = "embedmill.key"
"""In the request's scope: the `Key` that it has come with, if there are keys."""


def key_of(request: Request) -> Key | None:
    """Whose request it is; None where there are no keys."""
    key: Key | None = request.scope.get(REQUEST_KEY)
    return key


def most_bytes(request: Request, limit: int) -> int:
    """Of its body: the limit that holds for all, or the key's own."""
    return min(limit, most_bytes_of_key(request) or limit)


def most_bytes_of_key(request: Request) -> int | None:
    """Of its body, if its key has such a limit."""
    key = key_of(request)
    return key.request_bytes if key else None


def texts_per_minute(request: Request) -> int | None:
    """What its key may send, if it has such a limit."""
    key = key_of(request)
    return key.texts_per_minute if key else None


@asynccontextmanager
async def charged(request: Request, use: Resources, texts: int) -> AsyncIterator[None]:
    """Count texts against the key's rate, before the block that takes them in; they count no
    more if it says that they may be sent again, or have been taken in before. They do when nobody
    knows: Redis may have taken them in before it went.

    Raises RateExceeded, RequestTooLarge, BrokerDown.
    """
    key = key_of(request)
    if key is None or key.texts_per_minute is None:
        yield
        return
    account = (key.name, texts, key.texts_per_minute, use.settings)
    await run_async(use.redis, charge(*account))
    try:
        yield
    except EmbedError as error:
        not_taken = error.retryable and not isinstance(error, BrokerDown)
        if not_taken or isinstance(error, RequestRepeated):
            with suppress(BrokerDown):
                await run_async(use.redis, give_back(*account))
        raise
