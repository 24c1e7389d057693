"""Jobs that were accepted, followed until they are settled; `compose.ingest` uses it."""

from collections import deque
from dataclasses import dataclass, field

from compose.items import Batch
from compose.patience import Patience
from compose.web_client import WebClient
from tasks.errors import JobNotFound
from webapp.schemas import Accepted, JobOut

FRONT_JOBS = 8
"""Open jobs asked about in a round: jobs settle about in the order in which they were accepted."""
ROUND_JOBS = 64
"""Jobs asked about in a round at most, so that sending goes on."""
LISTED_FAILURES = 10


@dataclass(frozen=True, slots=True)
class Failure:
    """A document that did not become points, by where it comes from."""

    place: str
    code: str
    detail: str


@dataclass(slots=True)
class Tally:
    """Texts by what became of them. `unchanged` ones are done, and so are `chunked` and `truncated`
    ones. `lost`: the web no longer knows their job, or gave it up."""

    jobs: int = 0
    accepted: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0
    lost: int = 0
    unchanged: int = 0
    chunked: int = 0
    truncated: int = 0
    points: int = 0
    failures: list[Failure] = field(default_factory=list)
    """The first few."""

    @property
    def settled(self) -> int:
        return self.done + self.failed + self.cancelled + self.lost


@dataclass(frozen=True, slots=True)
class OpenJob:
    """A job and where its documents come from, in their order."""

    id: str
    places: tuple[str, ...]


class Follower:
    """The open jobs, the oldest first, and the tally of all."""

    def __init__(self, client: WebClient, patience: Patience) -> None:
        self._client = client
        self._patience = patience
        self._open: deque[OpenJob] = deque()
        self._done_in_open = 0
        self._settled_in_open = 0
        self.tally = Tally()
        self.last_job_id = ""

    def count(self, receipt: Accepted) -> None:
        """A job that nobody waits for."""
        self.tally.jobs += 1
        self.tally.accepted += receipt.accepted
        self.last_job_id = receipt.job_id

    def add(self, receipt: Accepted, batch: Batch) -> None:
        """A job to be followed: its documents' places are held until it is settled."""
        self.count(receipt)
        self._open.append(OpenJob(receipt.job_id, tuple(item.place for item in batch)))

    @property
    def any_open(self) -> bool:
        return bool(self._open)

    @property
    def done(self) -> int:
        """Texts done, those of open jobs included."""
        return self.tally.done + self._done_in_open

    @property
    def settled(self) -> int:
        """Texts settled, those of open jobs included."""
        return self.tally.settled + self._settled_in_open

    def look(self) -> None:
        """Ask the web once more. Raises WebDown, Interrupted."""
        still_open: list[OpenJob] = []
        done = settled = 0
        for _ in range(min(ROUND_JOBS, len(self._open))):
            job = self._open[0]
            view = self._ask(job)
            self._open.popleft()
            if view is None or view.state != "open":
                self._settle(job, view)
                continue
            still_open.append(job)
            done += view.done
            settled += view.done + view.failed + view.cancelled
            if len(still_open) == FRONT_JOBS:
                break
        self._open.extendleft(reversed(still_open))
        self._done_in_open, self._settled_in_open = done, settled

    def _ask(self, job: OpenJob) -> JobOut | None:
        try:
            return self._patience.call(lambda: self._client.job(job.id))
        except JobNotFound:
            return None

    def _settle(self, job: OpenJob, view: JobOut | None) -> None:
        tally = self.tally
        if view is None:
            tally.lost += len(job.places)
            self._note(
                job.places[0], "job_not_found", f"the web does not know job {job.id} any more"
            )
            return
        tally.done += view.done
        tally.failed += view.failed
        tally.cancelled += view.cancelled
        tally.unchanged += view.unchanged
        tally.chunked += view.chunked
        tally.truncated += view.truncated
        tally.points += view.points
        tally.lost += len(job.places) - view.done - view.failed - view.cancelled
        for error in view.errors:
            self._note(job.places[error.index], error.code, error.detail)

    def _note(self, place: str, code: str, detail: str) -> None:
        if len(self.tally.failures) < LISTED_FAILURES:
            self.tally.failures.append(Failure(place, code, detail))
