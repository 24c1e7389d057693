"""The shapes of requests and answers, as `/docs` shows them. Used inside `webapp` only.

Requests are checked by `tasks.documents`, the same way for HTTP and Python; the request model here
is their description.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.documents import COLLECTION_PATTERN, MAX_ID_CHARACTERS
from tasks.letters import ID_PATTERN, PAGE_LETTERS
from tasks.messages import OnLong
from tasks.settings import DEFAULT_MODEL

MAX_HITS = 1000

Id = Annotated[str, Field(min_length=1, max_length=MAX_ID_CHARACTERS)]
Metadata = Annotated[
    dict[str, Any],
    Field(
        description="Any JSON object; stored untouched. Integers of more than 64 bits become "
        "doubles, as in most JSON readers: send them as strings."
    ),
]


Collection = Annotated[
    str | None, Field(pattern=COLLECTION_PATTERN, description="Unset: EMBED_COLLECTION.")
]
Cursor = Annotated[str, Field(json_schema_extra={"pattern": ID_PATTERN})]


class DocumentIn(BaseModel):
    """One text. Without an id, the id is the text's hash."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(min_length=1)
    id: Id | None = None
    metadata: Metadata | None = None


class EmbedIn(BaseModel):
    """Exactly one of `text`, `texts` and `documents`; `id` and `metadata` go with `text`."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "oneOf": [
                {"required": ["text"]},
                {"required": ["texts"], "properties": {"id": False, "metadata": False}},
                {"required": ["documents"], "properties": {"id": False, "metadata": False}},
            ],
            "examples": [
                {"text": "hello world"},
                {"documents": [{"id": "1", "text": "hello", "metadata": {"lang": "en"}}]},
            ],
        },
    )

    text: str = Field(default="", min_length=1)
    id: Id | None = None
    metadata: Metadata | None = None
    texts: list[Annotated[str, Field(min_length=1)]] = Field(default=[], min_length=1)
    documents: list[DocumentIn] = Field(default=[], min_length=1)
    collection: Collection = None
    on_long: OnLong | None = Field(default=None, description="Unset: chunk.")


class DeleteIn(BaseModel):
    """Documents by their ids; one that is not there is no error."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"ids": ["1", "2"]}]})

    ids: list[Id] = Field(min_length=1)


class Accepted(BaseModel):
    """202: the documents are in the queue, on disk, to be embedded or to be deleted."""

    job_id: str
    document_ids: Sequence[str]
    accepted: int


class Uploaded(BaseModel):
    """202: the lines are in the queue, on disk. `accepted` documents of this request, after those
    that earlier ones with its Idempotency-Key brought; `job_ids` has the last 1,000 of its jobs."""

    accepted: int
    accepted_before: int
    next_line: int
    jobs: int
    job_ids: Sequence[str]


class DocumentError(BaseModel):
    index: int
    id: str
    code: str
    detail: str


class JobOut(BaseModel):
    """A job and what became of its documents; `errors` holds the first 100.

    `unchanged` documents are among those that are done: what was stored before is the same, so
    nothing was embedded or written.
    """

    model_config = ConfigDict(from_attributes=True)

    job_id: str
    state: Literal["open", "done", "cancelled", "abandoned"]
    collection: str
    model: str
    accepted: int
    done: int
    failed: int
    cancelled: int
    chunked: int = 0
    truncated: int
    points: int
    unchanged: int = 0
    rate_per_s: float
    eta_s: float | None
    created_at: float
    settled_at: float | None
    errors: list[DocumentError]


class LetterRow(BaseModel):
    """A dead letter of a list: `at` in Unix seconds, `excerpt` the beginning of the text."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    at: float
    job_id: str
    index: int
    document_id: str
    collection: str
    code: str
    detail: str
    attempts: int
    excerpt: str


class LetterOut(LetterRow):
    """The document whole, and its acceptance number, which it keeps when it is replayed."""

    text: str
    metadata: dict[str, Any] | None
    on_long: str
    sequence: int


class LetterList(BaseModel):
    """Newest first; a page may be short, or empty. `cursor` is null on the last one. `total` counts
    all letters, of whatever code."""

    letters: list[LetterRow]
    total: int
    cursor: str | None


class ReplayIn(BaseModel):
    """Exactly one of `ids`, `code` and `all`; the last two take a page at a time."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "oneOf": [
                {"required": ["ids"], "properties": {"cursor": {"type": "null"}}},
                {"required": ["code"]},
                {"required": ["all"]},
            ],
            "examples": [{"all": True}, {"code": "store_rejected"}],
        },
    )

    ids: list[str] = Field(default=[], min_length=1, max_length=PAGE_LETTERS)
    code: str = Field(default="", min_length=1)
    all: Literal[True] = True
    cursor: Cursor | None = Field(default=None, description="Of the page before; not with ids.")

    @model_validator(mode="after")
    def _one_choice(self) -> Self:
        chosen = self.model_fields_set & {"ids", "code", "all"}
        if len(chosen) != 1:
            raise ValueError("give exactly one of ids, code and all")
        if self.cursor is not None and self.ids:
            raise ValueError("a cursor goes with code or all, not with ids")
        return self


class ReplayedJob(BaseModel):
    job_id: str
    collection: str
    accepted: int


class RefusedLetter(BaseModel):
    id: str
    code: str
    detail: str


class Replayed(BaseModel):
    """`refused` letters stay where they are; `cursor` is null when no page follows."""

    replayed: int
    jobs: list[ReplayedJob]
    refused: list[RefusedLetter]
    cursor: str | None


class Purged(BaseModel):
    purged: int


class WorkerOut(BaseModel):
    """A worker: `warm` of its `concurrency` children have loaded the model."""

    name: str
    concurrency: int
    warm: int
    model: str | None


class QueueOut(BaseModel):
    """`waiting` and `reserved` count messages (up to 64 texts each), as Flower does; `outstanding`
    and `limit` count texts accepted and not yet settled, wherever they are."""

    waiting: int
    reserved: int
    outstanding: int
    limit: int
    outstanding_bytes: int
    limit_bytes: int
    oldest_age_s: float
    drain_rate_per_s: float
    workers: list[WorkerOut]


class EmbeddingsIn(BaseModel):
    """OpenAI's request; `input_type` is ours."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"input": "hello world", "model": DEFAULT_MODEL}]},
    )

    input: (
        Annotated[str, Field(min_length=1)]
        | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=2048)]
    )
    model: str = Field(description="The workers' EMBED_MODEL.")
    encoding_format: Literal["float", "base64"] | None = Field(
        default=None, description="Unset: float."
    )
    dimensions: int | None = Field(default=None, description="The model's own, or unset.")
    user: str | None = Field(default=None, description="Ignored.")
    input_type: Literal["query", "document"] | None = Field(
        default=None,
        description="Which of the model's prompts goes before the texts; unset: the query's.",
    )


class Embedding(BaseModel):
    """`embedding` is base64 of little-endian float32 if that was asked for."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class EmbeddingsOut(BaseModel):
    """OpenAI's answer."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Usage


class OpenAIErrorBody(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(BaseModel):
    """OpenAI's error."""

    error: OpenAIErrorBody


class SearchIn(BaseModel):
    """A text, and where to look for what is near to it."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "text": "how do I open a file?",
                    "limit": 5,
                    "filter": {"must": [{"key": "metadata.lang", "match": {"value": "en"}}]},
                }
            ]
        },
    )

    text: str = Field(min_length=1)
    collection: Collection = None
    limit: Annotated[int, Field(ge=1, le=MAX_HITS)] | None = Field(
        default=None, description="Unset: 10."
    )
    filter: dict[str, Any] | None = Field(
        default=None, description="A Qdrant filter over the payload: `metadata.<name>` is yours."
    )


class Hit(BaseModel):
    """A chunk; `score` is the cosine of the angle to the text. Points that somebody else wrote
    may lack the rest."""

    id: str
    score: float
    text: str | None
    document_id: str | None
    chunk: int | None
    chunks: int | None
    metadata: dict[str, Any] | None


class SearchOut(BaseModel):
    collection: str
    model: str
    hits: list[Hit]


class Problem(BaseModel):
    """RFC 9457, with a stable `code`; `index` is the offending document's, if one is to blame. An
    upload has its `line`, and `upload`: what was accepted before."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    index: int | None = None
    line: int | None = None
    upload: Uploaded | None = None


class Trouble(BaseModel):
    code: str
    detail: str


class Readiness(BaseModel):
    """`ready` exactly when there are no `troubles`."""

    ready: bool
    troubles: list[Trouble]


class Alive(BaseModel):
    status: Literal["alive"] = "alive"
