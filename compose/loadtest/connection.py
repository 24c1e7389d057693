"""One keep-alive connection to a web: HTTP/1.1 and no more, on the machine that is measured.

A request costs 0.03 ms of CPU; through httpx it is 0.75 ms, which is more than the web takes.
"""

import asyncio
import ssl
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, cast

import httptools

from compose.addresses import split_web

PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; `retry_after_s` where it says when to come back."""

    status: int
    retry_after_s: float | None
    body: bytes

    @property
    def succeeded(self) -> bool:
        return 200 <= self.status < 300


class Unanswered(Exception):
    """No answer came; `code` is what the report calls it: `timeout` or `connection`."""

    def __init__(self, code: Literal["timeout", "connection"]) -> None:
        super().__init__(code)
        self.code = code


class Address:
    """Where a web is, and what every request to it begins with."""

    def __init__(self, url: str, key: str | None) -> None:
        """Raises WebRefused for what is not an HTTP URL."""
        parts = split_web(url)
        self.host, self.port = parts.hostname or "", parts.port or PORTS[parts.scheme]
        self.tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._path = parts.path.rstrip("/")
        host = parts.netloc.rpartition("@")[2]
        lines = [f"Host: {host}", "Accept: */*", "User-Agent: embedmill-loadtest"]
        lines += [f"Authorization: Bearer {key}"] if key else []
        self._headers = "\r\n".join(lines)

    def render(self, method: str, path: str, body: bytes = b"") -> bytes:
        """A request as it goes over the wire."""
        head = f"{method} {self._path}{path} HTTP/1.1\r\n{self._headers}\r\n"
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        return f"{head}\r\n".encode() + body


class Connection:
    """Opened when it is first used, and again after it was closed; one request at a time."""

    def __init__(self, address: Address, timeout_s: float) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._wire: _Wire | None = None

    async def ask(self, method: str, path: str, body: bytes = b"") -> Reply:
        """Raises Unanswered. A server may close what was idle while we write: then it is sent once
        more."""
        request = self._address.render(method, path, body)
        try:
            async with asyncio.timeout(self._timeout_s):
                if self._wire is not None and not self._wire.closed:
                    with suppress(_ClosedIdle):
                        return await self._wire.send(request)
                self.close()
                self._wire = await self._open()
                return await self._wire.send(request)
        except TimeoutError as error:
            self.close()
            raise Unanswered("timeout") from error
        except (OSError, _ClosedIdle, httptools.HttpParserError) as error:
            self.close()
            raise Unanswered("connection") from error
        except asyncio.CancelledError:
            self.close()
            raise

    async def _open(self) -> "_Wire":
        at = self._address
        loop = asyncio.get_running_loop()
        _, wire = await loop.create_connection(_Wire, at.host, at.port, ssl=at.tls)
        return wire

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()
        self._wire = None


class _ClosedIdle(Exception):
    """The server closed the connection without a byte of an answer."""


class _Wire(asyncio.Protocol):
    """The parser's callbacks and the transport's, for one answer at a time."""

    def __init__(self) -> None:
        self.closed = False
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Reply] | None = None
        self._begin()

    def _begin(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._retry_after_s: float | None = None
        self._body: list[bytes] = []
        self._touched = False

    async def send(self, request: bytes) -> Reply:
        """Raises OSError, _ClosedIdle, httptools.HttpParserError."""
        assert self._transport is not None
        self._begin()
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own has another base

    def data_received(self, data: bytes) -> None:
        self._touched = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        lost = exc or ConnectionResetError("closed within an answer")
        self._fail(lost if self._touched else _ClosedIdle())

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"retry-after" and value.isdigit():
            self._retry_after_s = float(value)

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        self.closed = self.closed or not self._parser.should_keep_alive()
        reply = Reply(self._parser.get_status_code(), self._retry_after_s, b"".join(self._body))
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(reply)
