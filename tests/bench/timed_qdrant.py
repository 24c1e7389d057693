"""The local Qdrant server, with the moment of each upsert's reply written into a pipe.

`python -m tests.bench.timed_qdrant` takes the options of `compose.qdrant`; the pipe's path comes by
environment. The moment is that of the system's monotonic clock, which all processes share.
"""

import os
import time
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from compose.qdrant import __main__ as program
from compose.qdrant import server

PIPE = "BENCH_UPSERTS_PIPE"


class Stamp:
    """ASGI middleware around upserts."""

    def __init__(self, app: ASGIApp, pipe: Path) -> None:
        self._app = app
        self._pipe = os.open(pipe, os.O_WRONLY)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def stamped(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                os.write(self._pipe, f"{time.monotonic()}\n".encode())

        upserts = scope["type"] == "http" and _is_upsert(scope)
        await self._app(scope, receive, stamped if upserts else send)


def _is_upsert(scope: Scope) -> bool:
    method, path = str(scope["method"]), str(scope["path"])
    return method == "PUT" and path.endswith("/points")


def main() -> None:
    build_app = server.build_app

    def build_stamped(*args: Any, **kwargs: Any) -> Starlette:
        app = build_app(*args, **kwargs)
        app.add_middleware(Stamp, pipe=Path(os.environ[PIPE]))
        return app

    server.build_app = build_stamped
    program.main()


if __name__ == "__main__":
    main()
