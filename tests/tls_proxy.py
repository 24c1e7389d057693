"""TLS before a server that has none: `python -m tests.tls_proxy CERTIFICATE PORT TARGET HEARD`.

Passes on what it decrypts to the port TARGET of this machine, and keeps what clients said in HEARD.
"""

import asyncio
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

import httpx
import trustme

from tests.processes import Program, free_port

LISTENING = b"listening"


class TlsProxy:
    """Such a process, with a certificate that the authority has signed."""

    def __init__(self, authority: trustme.CA, target: str, folder: Path) -> None:
        self.port = free_port()
        self.heard = folder / f"heard-{self.port}"
        certificate = folder / f"server-{self.port}.pem"
        issued = authority.issue_cert("127.0.0.1", "localhost")
        issued.private_key_and_cert_chain_pem.write_to_path(str(certificate))
        arguments = [certificate, self.port, httpx.URL(target).port, self.heard]
        argv = [sys.executable, "-m", "tests.tls_proxy", *map(str, arguments)]
        self.program = Program(argv, log=folder / f"proxy-{self.port}.log")
        self.program.wait_until(lambda: LISTENING in self.said(), "the proxy listens")

    def said(self) -> bytes:
        """What clients have said."""
        return self.heard.read_bytes() if self.heard.exists() else b""


@contextmanager
def tls_before(authority: trustme.CA, target: str, folder: Path) -> Iterator[TlsProxy]:
    """Listen for the block."""
    proxy = TlsProxy(authority, target, folder)
    try:
        yield proxy
    finally:
        proxy.program.stop()


def serve(certificate: str, port: str, target: str, heard: str) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    with Path(heard).open("ab", buffering=0) as notes:
        asyncio.run(listen(context, int(port), int(target), notes))


async def listen(context: ssl.SSLContext, port: int, target: int, notes: FileIO) -> None:
    async def connect(client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        server, requests = await asyncio.open_connection("127.0.0.1", target)
        with suppress(OSError):
            await asyncio.gather(pass_on(client, requests, notes), pass_on(server, answers, None))

    server = await asyncio.start_server(connect, "127.0.0.1", port, ssl=context)
    notes.write(LISTENING)
    await server.serve_forever()


async def pass_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, notes: FileIO | None
) -> None:
    while data := await reader.read(65536):
        if notes is not None:
            notes.write(data)
        writer.write(data)
        await writer.drain()
    writer.close()


if __name__ == "__main__":
    serve(*sys.argv[1:])
