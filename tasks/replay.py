"""From dead letters to jobs: each document anew, on the way of all. Any package may import it.

A replayed document keeps its acceptance number. A text of the same id that was accepted later wins
over it, in whatever order they are stored, as it would if the document had not failed.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from celery import Celery

from tasks.documents import parse_documents, parse_options, refuse_oversize
from tasks.errors import EmbedError
from tasks.ledger import Submission
from tasks.letters import DeadLetter
from tasks.messages import Document, Options
from tasks.settings import Settings
from tasks.submission import build_submission, new_job_id, slice_job


@dataclass(frozen=True, slots=True)
class Replay:
    """Jobs to accept, and what keeps letters from being replayed, by their ids."""

    submissions: Sequence[Submission]
    refused: Mapping[str, EmbedError]


def pack_letters(app: Celery, letters: Sequence[DeadLetter], settings: Settings) -> Replay:
    """One job for each collection and `on_long`, of their letters in order.

    What is not acceptable any more, because a limit has changed, say, is refused.
    """
    readable: dict[Options, list[tuple[DeadLetter, Document]]] = defaultdict(list)
    refused: dict[str, EmbedError] = {}
    for letter in letters:
        try:
            options = parse_options(letter.collection, letter.on_long, settings)
            readable[options].append((letter, _document(letter, settings)))
        except EmbedError as error:
            refused[letter.id] = error
    submissions = [_pack(app, options, pairs) for options, pairs in readable.items()]
    return Replay(submissions, refused)


def _document(letter: DeadLetter, settings: Settings) -> Document:
    row = {"id": letter.document_id, "text": letter.text, "metadata": letter.metadata}
    (document,) = parse_documents(row, settings)
    (part,) = slice_job("", [document])
    refuse_oversize(part.sizes, settings)
    return document


def _pack(
    app: Celery, options: Options, pairs: Sequence[tuple[DeadLetter, Document]]
) -> Submission:
    slices = slice_job(new_job_id(), [document for _, document in pairs])
    letters = [letter for letter, _ in pairs]
    return replace(
        build_submission(app, slices, options),
        letters=[letter.id for letter in letters],
        numbers=[letter.sequence for letter in letters],
    )
