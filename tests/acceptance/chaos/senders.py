"""Clients that post every parcel until it is accepted, as a careful program would."""

import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from random import Random
from types import TracebackType
from typing import Self

import httpx

from tests.acceptance.chaos.parcels import Parcel, revise

TIMEOUT_S = 20.0
"""Longer than the web ever takes: a request that is given up is one whose web was killed."""
MAX_WAIT_S = 1.0


@dataclass(frozen=True, slots=True)
class Receipt:
    """A 202: the job, and what it took in."""

    job_id: str
    parcel: Parcel


@dataclass
class Post:
    """What has been answered so far; for many threads."""

    receipts: list[Receipt] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, answer: str, receipt: Receipt | None = None) -> None:
        with self.lock:
            self.answers[answer] += 1
            if receipt:
                self.receipts.append(receipt)


class Senders:
    """Threads that share out the parcels; leaving the block stops them.

    `revised` is the share of parcels that are sent again with other texts, once they were accepted.
    """

    def __init__(
        self,
        url: str,
        parcels: Sequence[Parcel],
        chance: Random,
        *,
        clients: int,
        revised: float,
    ) -> None:
        self.post = Post()
        self._revised = revised
        self._url = url
        self._stopped = threading.Event()
        self._pool = ThreadPoolExecutor(clients)
        seeds = [Random(chance.random()) for _ in range(clients)]
        self._done: list[Future[None]] = [
            self._pool.submit(self._send_all, parcels[number::clients], seeds[number])
            for number in range(clients)
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._pool.shutdown()

    def done(self) -> bool:
        """Whether everything is accepted; raises what stopped a thread."""
        return all([future.done() and future.result() is None for future in self._done])

    def _send_all(self, parcels: Sequence[Parcel], chance: Random) -> None:
        with httpx.Client(base_url=self._url, timeout=TIMEOUT_S) as client:
            for parcel in parcels:
                self._send(client, parcel)
                if chance.random() < self._revised:
                    self._send(client, revise(parcel))

    def _send(self, client: httpx.Client, parcel: Parcel) -> None:
        body = {"documents": [sheet.row() for sheet in parcel]}
        while not self._stopped.is_set():
            try:
                answer = client.post("/embed", json=body)
            except httpx.HTTPError as error:
                self.post.note(type(error).__name__)
                self._stopped.wait(0.1)
                continue
            if answer.status_code == httpx.codes.ACCEPTED:
                self.post.note("202", Receipt(answer.json()["job_id"], parcel))
                return
            self.post.note(str(answer.status_code))
            if answer.status_code not in {429, 503}:
                raise AssertionError(f"{answer.status_code} {answer.text}")
            self._stopped.wait(min(float(answer.headers["Retry-After"]), MAX_WAIT_S))
