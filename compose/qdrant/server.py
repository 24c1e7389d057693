"""The process: it holds the data directory, listens, flushes in the background, closes cleanly.

Imported by the command line and by `python -m compose.qdrant`.
"""

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NoReturn

import uvicorn
from starlette.applications import Starlette

from compose.qdrant.errors import DataDirError, EngineError
from compose.qdrant.routes import ROUTES, answer_fault
from compose.qdrant.storage import Storage

# What an operation logged survives the death of the process at once; a flush makes it survive the
# loss of power too. A flush stops the server for about 7 ms per 1,000 points changed.
FLUSH_INTERVAL_S = 5.0
# Longer than clients keep an idle connection (httpx: 5 s), so that none is closed under a request.
KEEP_ALIVE_S = 75
SHUTDOWN_TIMEOUT_S = 3  # for requests whose client does not finish sending them
BACKLOG = 2048  # connections waiting to be accepted, as uvicorn's own default

logger = logging.getLogger(__name__)


def serve(
    data_dir: Path, host: str, port: int, *, flush_interval_s: float = FLUSH_INTERVAL_S
) -> None:
    """Serve `data_dir` until SIGTERM or Ctrl-C; one line on stdout says the address when ready.

    Port 0 takes a free port. Call it in the main thread.

    Raises:
        SystemExit: with a sentence, when the directory or the port cannot be had; 0 on SIGTERM.
    """
    try:
        storage = Storage(data_dir)
        listener = listen(host, port)
    except DataDirError as error:
        raise SystemExit(str(error)) from error
    except OSError as error:
        raise SystemExit(f"Cannot listen on {host}:{port}: {error.strerror}.") from error
    app = build_app(storage, flush_interval_s, on_ready=lambda: announce(listener, data_dir))
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="on",
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
    )
    signal.signal(signal.SIGTERM, leave)  # uvicorn raises the signal again once it has shut down
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])


def build_app(
    storage: Storage, flush_interval_s: float, *, on_ready: Callable[[], None]
) -> Starlette:
    """The ASGI application over an open storage, which it closes when it shuts down."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.storage = storage
        flusher = asyncio.create_task(flush_regularly(storage, flush_interval_s))
        on_ready()
        try:
            yield
        finally:
            flusher.cancel()
            with suppress(asyncio.CancelledError):
                await flusher
            storage.close()

    return Starlette(routes=ROUTES, lifespan=lifespan, exception_handlers={Exception: answer_fault})


async def flush_regularly(storage: Storage, interval_s: float) -> None:
    """Flush what changed, one collection at a time so that requests come in between."""
    while True:
        await asyncio.sleep(interval_s)
        for collection in storage.collections:
            try:
                collection.flush()
            except EngineError:
                logger.exception("A flush failed; it is tried again in %g s", interval_s)
            await asyncio.sleep(0)


def listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)


def announce(listener: socket.socket, data_dir: Path) -> None:
    host, port = listener.getsockname()[:2]
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    sys.stdout.write(f"Local Qdrant on http://{address} keeps its data in {data_dir}\n")
    sys.stdout.flush()


def leave(_signal_number: int, _frame: object) -> NoReturn:
    raise SystemExit(0)
