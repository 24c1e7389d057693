"""What `embed.delay(...).get()` returns. Any package may import it."""

from collections.abc import Sequence
from typing import Any, TypedDict, cast

from celery.result import ResultSet

from tasks.admission import redis_client
from tasks.errors import DocumentsFailed
from tasks.messages import Outcome
from tasks.settings import get_settings
from tasks.snapshot import JobSnapshot, read_job

MAX_ERRORS = 100


class Failure(TypedDict):
    """One document that failed; `index` is its position in the job."""

    index: int
    id: str
    code: str
    detail: str


class Summary(TypedDict):
    """What became of the documents of one task, or of a job that was split into several."""

    job_id: str
    done: int
    failed: int
    points: int
    truncated: int
    unchanged: int
    errors: list[Failure]


def summarize(job_id: str, outcomes: Sequence[Outcome]) -> Summary:
    """Count outcomes, with the first 100 failures."""
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    return Summary(
        job_id=job_id,
        done=sum(outcome.state == "done" for outcome in outcomes),
        failed=len(failed),
        points=sum(outcome.points for outcome in outcomes),
        truncated=sum(outcome.truncated for outcome in outcomes),
        unchanged=sum(outcome.unchanged for outcome in outcomes),
        errors=[
            Failure(index=o.index, id=o.id, code=o.code, detail=o.detail[:1000])
            for o in failed[:MAX_ERRORS]
        ],
    )


def all_failed(summary: Summary) -> DocumentsFailed:
    """The error of a task or job none of whose documents could be embedded."""
    reasons = [f"{error['code']}: {error['detail']}" for error in summary["errors"][:1]]
    return DocumentsFailed("; ".join([f"all {summary['failed']} documents failed", *reasons]))


class SplitResult(ResultSet):
    """One result over the messages of one job; `id` is the job's, `results` are the messages'."""

    def __init__(self, job_id: str, results: Sequence[Any], **options: Any) -> None:
        super().__init__(list(results), **options)
        self.id = job_id

    def get(  # type: ignore[override]  # one summary, not a list of them
        self, timeout: float | None = None, propagate: bool = True, **options: Any
    ) -> Summary:
        """Wait for all messages; lists what failed, and raises DocumentsFailed only if all did."""
        super().get(timeout=timeout, propagate=False, **options)
        summary = summarize_job(read_job(redis_client(), self.id, get_settings()))
        if propagate and summary["failed"] and not summary["done"]:
            raise all_failed(summary)
        return summary


def summarize_job(job: JobSnapshot) -> Summary:
    """The same of a whole job, as its ledger has it."""
    return Summary(
        job_id=job.job_id,
        done=job.done,
        failed=job.failed,
        points=job.points,
        truncated=job.truncated,
        unchanged=job.unchanged,
        errors=[cast(Failure, row) for row in job.errors],
    )
