"""What a worker does with messages: claim, embed, settle. Runs in the process that has the model.

    deliveries ─▶ claim ─┬▶ ordinary ones, together: one pass of the model over all their documents
                         └▶ suspects, document by document: each marked before it is embedded

A message is a suspect when it was claimed before and nobody has said how that ended: a process was
lost with it, however that came. Whatever kills the process then kills it while alone, is counted,
and after `EMBED_POISON_LOSSES` losses goes to the dead letters.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from celery.exceptions import Reject

from tasks.admission import ledger, redis_client
from tasks.claims import Claim
from tasks.documents import parse_documents, parse_options
from tasks.errors import (
    BrokerDown,
    EmbedError,
    EncoderBroken,
    InvalidRequest,
    JobNotFound,
    StoreDown,
)
from tasks.ledger import Call, Submission, T, run
from tasks.letters import write_letter
from tasks.messages import QUEUE, VERSION, Coordinates, Document, Options, Outcome, PlacedDocument
from tasks.results import Summary, all_failed, summarize, summarize_job
from tasks.settings import get_settings
from tasks.snapshot import read_job
from tasks.submission import digest_contents, new_job_id, slice_job
from workers.draining import is_draining
from workers.lane import give_way
from workers.pipeline import fail
from workers.process import embed_documents
from workers.publishing import publish
from workers.soft_limit import OutOfTime, soft_limit_passes
from workers.timings import Timings
from workers.waiting import begin_work

logger = logging.getLogger(__name__)

LEDGER_RETRIES = 20
"""Tries to reach the ledger before a message goes back to the queue."""
LEDGER_PAUSE_MAX_S = 2.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message's documents, and where they stand in their job."""

    place: Coordinates
    documents: Sequence[Document]
    options: Options
    foreign: bool = False

    @property
    def job_id(self) -> str:
        return self.place["job"]

    def placed(self, claim: Claim) -> list[PlacedDocument]:
        """The documents that are left to do."""
        start = self.place["start"]
        return [
            PlacedDocument(
                index,
                claim.number(index),
                self.documents[index - start],
                uncontested=index in claim.uncontested,
                overtaken_by=claim.overtaken.get(index, 0),
            )
            for index in claim.indices
        ]


@dataclass(frozen=True, slots=True)
class _Work:
    """A delivery with what the ledger says is left to do."""

    delivery: Delivery
    documents: list[PlacedDocument]
    claim: Claim


def read_delivery(
    task_id: str | None, place: Coordinates | None, raw: Any, collection: Any, on_long: Any
) -> Delivery:
    """A delivery from a message's header and arguments. Raises RequestError for nonsense.

    What was admitted by us was checked then; a message of a foreign producer is checked here.
    """
    settings = get_settings()
    if place:
        return _read_own(place, raw, collection, on_long)
    options = parse_options(collection, on_long, settings)
    documents = parse_documents(raw, settings)
    job_id = task_id or new_job_id()
    place = Coordinates(v=VERSION, job=job_id, start=0, count=len(documents))
    return Delivery(place, documents, options, foreign=True)


def _read_own(place: Coordinates, raw: Any, collection: Any, on_long: Any) -> Delivery:
    """Of another version of ours, perhaps: what cannot be read is settled as failed."""
    try:
        documents = [_read_row(row, place) for row in raw]
        if len(documents) != place["count"]:
            raise ValueError(f"{len(documents)} documents instead of {place['count']}")
        options = parse_options(collection, on_long, get_settings())
        return Delivery(place, documents, replace(options, delete=place.get("delete", False)))
    except (TypeError, ValueError, EmbedError) as error:
        ours = InvalidRequest(f"its message cannot be read: {error}", code="message_invalid")
        _reach_ledger(ledger().fail(place, ours))
        raise ours from error


def _read_row(row: dict[str, Any], place: Coordinates) -> Document:
    return Document(**row, text="") if place.get("delete") else Document(**row)


def execute(deliveries: Sequence[Delivery]) -> list[Summary | Exception]:
    """What became of each delivery: a summary, or what its task has to raise.

    Ends the process when its model is broken: Celery replaces it, and its messages come back.

    `Reject` gives the message back: the store or the ledger is away. Documents are settled
    before this returns in every other case.
    """
    begin_work()
    timings = Timings()
    try:
        with timings.stage("pass"), soft_limit_passes():
            return _execute(deliveries, timings)
    except EncoderBroken as error:
        logger.critical("this process ends, its model is broken: %s", error)
        raise SystemExit(1) from error
    except OutOfTime as error:
        # what is settled stays so; the rest comes back as if its process were lost, and runs alone
        return [_reject(delivery, error) for delivery in deliveries]
    finally:
        publish(timings)


def _execute(deliveries: Sequence[Delivery], timings: Timings) -> list[Summary | Exception]:
    with timings.stage("claim"):
        claimed = [_claim(delivery) for delivery in deliveries]
    works = [work for work in claimed if isinstance(work, _Work)]
    timings.queue_waits_s += [work.claim.waited_s for work in works if work.documents]
    ordinary = [work for work in works if not work.claim.suspect]
    outcomes = dict(_together(ordinary, timings))
    with timings.stage("settle"):
        results = {id(work): _settle(work, outcomes[id(work)], timings) for work in ordinary}
    # after the others are settled: a suspect may take the process with it
    results |= {id(work): _alone(work, timings) for work in works if work.claim.suspect}
    return [results[id(work)] if isinstance(work, _Work) else work for work in claimed]


def execute_eagerly(delivery: Delivery) -> Summary:
    """Without a queue, and so without a ledger: for eager tasks and direct calls."""
    # acceptance numbers are microseconds: this one is later than what is in the store
    start = delivery.place["start"]
    indices = tuple(range(start, start + len(delivery.documents)))
    documents = delivery.placed(Claim(False, time.time_ns() // 1000, indices))
    summary = summarize(delivery.job_id, _embed(documents, delivery.options, Timings()))
    if summary["failed"] and not summary["done"]:
        raise all_failed(summary)
    return summary


def _claim(delivery: Delivery) -> "_Work | Exception":
    try:
        if delivery.foreign:
            _adopt(delivery)
        ids = [document.id for document in delivery.documents]
        claim = _reach_ledger(ledger().claim(delivery.place, ids))
    except BrokerDown as error:
        return _reject(delivery, error)
    except EmbedError as error:  # of its own: what shares the batch goes on
        return error
    if claim.expired:
        said = "job %s has expired: its message is done without work"
        logger.warning(said, delivery.job_id, extra={"job_id": delivery.job_id})
    return _Work(delivery, delivery.placed(claim), claim)


def _adopt(delivery: Delivery) -> None:
    (part,) = slice_job(delivery.job_id, delivery.documents, split=False)
    options = delivery.options
    adopted = Submission(
        delivery.job_id,
        [row["id"] for row in part.documents],
        part.sizes,
        [],
        options.collection,
        options.on_long,
        QUEUE,
        contents=digest_contents(part.encoded, options),
    )
    _reach_ledger(ledger().accept(adopted, mode="forced"))


def _together(
    works: Sequence[_Work], timings: Timings
) -> list[tuple[int, "list[Outcome] | Exception"]]:
    """The outcomes of each work, by its identity; one pass for all of the same options."""
    found: list[tuple[int, list[Outcome] | Exception]] = []
    ordered = sorted(works, key=lambda work: _options_key(work.delivery.options))
    for _, group in groupby(ordered, key=lambda work: work.delivery.options):
        members = list(group)
        documents = [placed for work in members for placed in work.documents]
        try:
            options = members[0].delivery.options
            outcomes = iter(_embed(documents, options, timings, give_way))
        except StoreDown as error:
            found += [(id(work), _give_back(work, error)) for work in members]
        else:
            found += [(id(work), [next(outcomes) for _ in work.documents]) for work in members]
    return found


def _alone(work: _Work, timings: Timings) -> Summary | Exception:
    """One document after the other, each marked before and settled after it is embedded."""
    limit = get_settings().poison_losses
    job_id = work.delivery.job_id
    outcomes: list[Outcome] = []
    try:
        for placed in work.documents:
            # while no document is marked: a query may take the process with it
            timings.seconds["queries"] += give_way()
            losses = _reach_ledger(ledger().mark(job_id, placed.index))
            if losses >= limit:
                outcome = _poison(placed, losses)
            else:
                outcome = _embed_alone(placed, work.delivery.options, timings)
            with timings.stage("settle"):
                outcomes += _record(work, [placed], [outcome], timings)
    except StoreDown as error:
        with suppress(BrokerDown):  # one loss too many is counted then, and no document lost
            _reach_ledger(ledger().unmark(job_id, placed.index))
        return _reject(work.delivery, error)
    except BrokerDown as error:
        return _reject(work.delivery, error)
    return _conclude(work, outcomes)


def _embed_alone(placed: PlacedDocument, options: Options, timings: Timings) -> Outcome:
    try:
        (outcome,) = _embed([placed], options, timings)
    except OutOfTime as error:
        return fail(placed, error)
    return outcome


def _poison(placed: PlacedDocument, losses: int) -> Outcome:
    return Outcome(
        placed.index,
        placed.document.id,
        "failed",
        code="process_killed",
        detail=f"{losses} processes ended while they embedded this document alone",
        attempts=losses,
    )


def _settle(
    work: _Work, outcomes: "list[Outcome] | Exception", timings: Timings
) -> Summary | Exception:
    if isinstance(outcomes, Exception):
        return outcomes
    try:
        recorded = _record(work, work.documents, outcomes, timings)
    except (BrokerDown, StoreDown) as error:
        return _give_back(work, error)
    return _conclude(work, recorded)


def _record(
    work: _Work,
    documents: Sequence[PlacedDocument],
    outcomes: Sequence[Outcome],
    timings: Timings,
) -> list[Outcome]:
    """Settle these documents. What a deletion has won over meanwhile is removed first, whatever
    has become of it, and then is done. Raises BrokerDown, StoreDown."""
    overtaken = _reach_ledger(_settlement(work, documents, outcomes))
    if not overtaken:
        return list(outcomes)
    late = [
        replace(placed, overtaken_by=overtaken[placed.index])
        for placed in documents
        if placed.index in overtaken
    ]
    removed = _record(work, late, _embed(late, work.delivery.options, timings), timings)
    kept = [outcome for outcome in outcomes if outcome.index not in overtaken]
    return sorted(kept + removed, key=lambda outcome: outcome.index)


def _settlement(
    work: _Work, documents: Sequence[PlacedDocument], outcomes: Sequence[Outcome]
) -> Call[Mapping[int, int]]:
    delivery = work.delivery
    if delivery.options.delete:
        return ledger().settle_written(delivery.job_id, outcomes, {}, ())
    written = {placed.index for placed in documents if not placed.overtaken_by}
    letters = {
        placed.index: write_letter(delivery.job_id, placed, delivery.options, outcome)
        for placed, outcome in zip(documents, outcomes, strict=True)
        if outcome.state == "failed"
    }
    return ledger().settle_written(delivery.job_id, outcomes, letters, written)


def _conclude(work: _Work, outcomes: Sequence[Outcome]) -> Summary | Exception:
    summary = summarize(work.delivery.job_id, outcomes)
    if work.claim.done or work.claim.failed:
        summary = _sum_up_all_deliveries(work, summary)
    if summary["failed"] and not summary["done"]:
        return all_failed(summary)
    return summary


def _sum_up_all_deliveries(work: _Work, summary: Summary) -> Summary:
    """What an earlier delivery of this message has settled counts as well."""
    with suppress(BrokerDown, JobNotFound):
        job = read_job(redis_client(), work.delivery.job_id, get_settings())
        if job.accepted == work.delivery.place["count"]:
            return summarize_job(job)
    summary["done"] += work.claim.done
    summary["failed"] += work.claim.failed
    return summary


def _give_back(work: _Work, error: Exception) -> Reject:
    """Without blame: its process lives, and it is no suspect when it comes back."""
    with suppress(BrokerDown):
        run(redis_client(), ledger().release(work.delivery.place))
    return _reject(work.delivery, error)


def _reject(delivery: Delivery, error: Exception) -> Reject:
    said = "a message of job %s goes back to the queue: %s"
    logger.warning(said, delivery.job_id, error, extra={"job_id": delivery.job_id})
    return Reject(str(error), requeue=True)


def _embed(
    documents: list[PlacedDocument],
    options: Options,
    timings: Timings,
    give_way: Callable[[], float] | None = None,
) -> list[Outcome]:
    if not documents:
        return []
    try:
        return embed_documents(documents, options, timings, give_way)
    except (StoreDown, EncoderBroken, OutOfTime):
        raise
    # Whatever a bug raises, the documents must be settled, or they would be outstanding for ever.
    except Exception as error:
        logger.exception("embedding %d documents failed", len(documents))
        detail = f"{type(error).__name__}: {error}"
        code = getattr(error, "code", "internal_error")
        return [
            Outcome(placed.index, placed.document.id, "failed", code=str(code), detail=detail)
            for placed in documents
        ]


def _options_key(options: Options) -> tuple[str, str, bool]:
    return options.collection, options.on_long, options.delete


def _reach_ledger(call: Call[T]) -> T:
    for attempt in range(LEDGER_RETRIES):
        try:
            return run(redis_client(), call)
        except BrokerDown:
            if attempt == LEDGER_RETRIES - 1 or is_draining():
                raise
            time.sleep(min(0.1 + 0.2 * attempt, LEDGER_PAUSE_MAX_S))
    raise AssertionError("unreachable")
