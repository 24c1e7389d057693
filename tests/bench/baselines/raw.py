"""Bare `SentenceTransformer.encode`: processes of one thread that take their share and encode it.

The model is loaded before the clock starts, and all start together.
"""

import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal
from unittest.mock import patch

import numpy as np

from tests.bench.baselines.model import MODEL, load_model
from tests.bench.figures import Floats
from tests.bench.results import BenchError

LOAD_TIMEOUT_S = 300.0
ENCODE_TIMEOUT_S = 900.0
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}

Order = tuple[Literal["together", "each"], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Share:
    """One process' part: when it began and ended, by the system's monotonic clock; its CPU time;
    seconds of each text where each was encoded by itself."""

    began_s: float
    ended_s: float
    cpu_s: float
    vectors: Floats
    each_s: list[float]


def _serve(link: "Connection[object, object]") -> None:
    """In a process of its own, until the other end closes."""
    model = load_model()
    link.send("warm")
    while True:
        try:
            kind, texts = _order(link.recv())
            link.send("loaded")
            link.recv()
        except EOFError:
            return
        each_s: list[float] = []
        began_s, began_cpu_s = time.monotonic(), time.process_time()
        if kind == "together":
            vectors = model.encode(list(texts), show_progress_bar=False)
        else:
            rows = []
            for text in texts:
                text_began_s = time.monotonic()
                rows.append(model.encode(text, show_progress_bar=False))
                each_s.append(time.monotonic() - text_began_s)
            vectors = np.stack(rows)
        used_s = time.process_time() - began_cpu_s
        link.send(Share(began_s, time.monotonic(), used_s, vectors, each_s))


def _order(received: object) -> Order:
    assert isinstance(received, tuple)
    return received


@dataclass(frozen=True, slots=True)
class Encoded:
    """From the first start to the last end, CPU time of all, and vectors in the texts' order."""

    wall_s: float
    cpu_s: float
    vectors: Floats


@dataclass(frozen=True, slots=True)
class Raw:
    """Processes with the model, as many as links."""

    links: "list[Connection[object, object]]"

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Each process takes every n-th text."""
        shares = self._run("together", [texts[at :: len(self.links)] for at in self._numbers])
        vectors = np.empty((len(texts), shares[0].vectors.shape[1]), dtype=np.float32)
        for at, share in enumerate(shares):
            vectors[at :: len(self.links)] = share.vectors
        wall_s = max(share.ended_s for share in shares) - min(share.began_s for share in shares)
        return Encoded(wall_s, sum(share.cpu_s for share in shares), vectors)

    def time_each(self, texts: Sequence[str]) -> list[float]:
        """Seconds of each text by itself, in the first process, the others idle."""
        self.links[0].send(("each", texts))
        return self._collect(self.links[:1])[0].each_s

    @property
    def _numbers(self) -> range:
        return range(len(self.links))

    def _run(self, kind: str, parts: Sequence[Sequence[str]]) -> list[Share]:
        for link, part in zip(self.links, parts, strict=True):
            link.send((kind, part))
        return self._collect(self.links)

    @staticmethod
    def _collect(links: "Sequence[Connection[object, object]]") -> list[Share]:
        for link in links:
            receive(link, LOAD_TIMEOUT_S)
        for link in links:
            link.send("go")
        shares = [receive(link, ENCODE_TIMEOUT_S) for link in links]
        return [share for share in shares if isinstance(share, Share)]


def receive(link: "Connection[object, object]", timeout_s: float) -> object:
    """Raises BenchError when nothing comes."""
    if not link.poll(timeout_s):
        raise BenchError(f"a process of bare encode said nothing for {timeout_s:.0f} s")
    return link.recv()


@contextmanager
def raw_processes(model: Path, count: int) -> Iterator[Raw]:
    """`count` warm processes for the block."""
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(count)]
    processes = [context.Process(target=_serve, args=(theirs,)) for _, theirs in pipes]
    with patch.dict(os.environ, ONE_THREAD | {MODEL: str(model)}):
        for process in processes:
            process.start()
    for _, theirs in pipes:
        theirs.close()
    links = [ours for ours, _ in pipes]
    try:
        for link in links:
            receive(link, LOAD_TIMEOUT_S)
        yield Raw(links)
    finally:
        for link in links:
            link.close()
        for process in processes:
            process.join(10)
            process.kill()
