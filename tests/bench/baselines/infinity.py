"""Infinity, an embedding server, from an environment of its own: its dependencies are not ours."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import orjson

from tasks.settings import Settings
from tests.bench.load import post_all
from tests.processes import Program, free_port
from workers.weights import find_weights

NAME = "bench"
REQUEST_TEXTS = 64
CONNECTIONS = 4
START_TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class Infinity:
    """A running server."""

    url: str

    def encode(self, texts: Sequence[str]) -> float:
        """Seconds until all vectors were sent back; nothing is stored."""
        bodies = [
            orjson.dumps({"model": NAME, "input": list(texts[at : at + REQUEST_TEXTS])})
            for at in range(0, len(texts), REQUEST_TEXTS)
        ]
        began_s = time.monotonic()
        post_all(f"{self.url}/embeddings", bodies, connections=CONNECTIONS)
        return time.monotonic() - began_s


@contextmanager
def infinity(folder: Path, python: Path) -> Iterator[Infinity]:
    """`infinity_emb v2` of that Python's environment, on the CPU, warm."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    options = {
        "--model-id": str(find_weights(Settings())),
        "--served-model-name": NAME,
        "--device": "cpu",
        "--engine": "torch",
        "--host": "127.0.0.1",
        "--port": str(port),
    }
    argv = [part for option in options.items() for part in option]
    program = Program(
        [str(python.with_name("infinity_emb")), "v2", *argv], log=folder / "infinity.log"
    )
    try:
        program.wait_until(lambda: _answers(url), "Infinity answers", timeout_s=START_TIMEOUT_S)
        yield Infinity(url)
    finally:
        program.stop()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
