"""A client that costs next to nothing: requests rendered beforehand, bare sockets, many at a time.

It shares the cores with what it measures, so it must not be what is measured.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from tests.bench.results import BenchError

TIMEOUT_S = 120.0


def render(url: str, body: bytes, *, keep_alive: bool = True) -> bytes:
    """A POST of JSON as it goes over the wire."""
    parts = urlsplit(url)
    lines = (
        f"POST {parts.path} HTTP/1.1",
        f"Host: {parts.netloc}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        f"Connection: {'keep-alive' if keep_alive else 'close'}",
    )
    return "\r\n".join((*lines, "", "")).encode() + body


def post_all(
    url: str, bodies: Sequence[bytes], *, connections: int, keep_alive: bool = True
) -> None:
    """Send each once, `connections` at a time. Raises BenchError when one is refused.

    Without `keep_alive` each has a connection of its own, so that several processes that listen on
    one socket share them.
    """
    requests = iter([render(url, body, keep_alive=keep_alive) for body in bodies])
    asyncio.run(_gather(url, [requests] * connections, None))


def flood(url: str, requests: Sequence[bytes], *, connections: int, seconds: float) -> float:
    """Requests answered a second while `connections` send without a pause."""
    began = time.monotonic()
    count = asyncio.run(_gather(url, [_cycle(requests)] * connections, began + seconds))
    return count / (time.monotonic() - began)


def _cycle(requests: Sequence[bytes]) -> Iterator[bytes]:
    while True:
        yield from requests


async def _gather(url: str, sources: Sequence[Iterator[bytes]], until: float | None) -> int:
    senders = [_send(url, source, until) for source in sources]
    return sum(await asyncio.wait_for(asyncio.gather(*senders), TIMEOUT_S))


async def _send(url: str, requests: Iterator[bytes], until: float | None) -> int:
    """Until the source or the time is at its end; how many were answered."""
    count, connection = 0, None
    for request in requests:
        if until is not None and time.monotonic() > until:
            break
        if connection is None:
            parts = urlsplit(url)
            connection = await asyncio.open_connection(parts.hostname, parts.port)
        reader, writer = connection
        writer.write(request)
        if await _answer(reader):
            writer.close()
            connection = None
        count += 1
    if connection is not None:
        connection[1].close()
    return count


async def _answer(reader: asyncio.StreamReader) -> bool:
    """Whether the server closes the connection. Raises BenchError on anything but a success."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
    body = await reader.readexactly(length)
    if head[9:10] != b"2":
        raise BenchError(f"answered {head[9:12].decode()}: {body[:300].decode(errors='replace')}")
    return b"connection: close" in head
