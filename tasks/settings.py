"""All settings, in one class: the only reader of the environment. Any package may import it.

Every setting is an environment variable `EMBED_<NAME>`, or a line of the settings file, which the
environment wins over. A name that does not exist is refused in both, so that a typing error stops
the start instead of being ignored.
"""

import difflib
import os
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, urlunsplit

from pydantic import (
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from tasks import settings_file
from tasks.errors import SettingsError
from tasks.urls import redact, split_url

PREFIX = "EMBED_"
DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
MIB = 1024 * 1024


class Settings(BaseSettings):
    """Each field says when to change it; relations between fields are checked at the end."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, env_ignore_empty=True)

    _file: Path | None = PrivateAttr(default=None)

    model: str = Field(
        default=DEFAULT_MODEL,
        min_length=1,
        description="A folder, or a name on the Hugging Face hub; `fake` needs no weights.",
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        default="auto", description="Where the model runs; `auto` takes CUDA when it is there."
    )
    backend: Literal["torch", "torch-bf16", "torch-fp16", "onnx-int8"] = Field(
        default="torch",
        description="The engine: `torch` (fp32), `torch-bf16` and `torch-fp16` for GPUs, "
        "`onnx-int8` for CPUs.",
    )
    broker_url: str = Field(
        default="redis://127.0.0.1:6379/0",
        description="The Redis that carries the queue and keeps the ledger.",
    )
    qdrant_url: str = Field(
        default="http://127.0.0.1:6333", description="The Qdrant that keeps the vectors."
    )
    collection: str = Field(
        default="documents",
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$",
        description="The collection of requests that name none.",
    )
    concurrency: int | None = Field(
        default=None,
        ge=1,
        le=512,
        description="Pool children of a worker, one model each; unset: one a core, or one a GPU.",
    )
    web_workers: int = Field(
        default=1, ge=1, le=512, description="Web processes of `embedmill up`."
    )
    prefetch_multiplier: int = Field(
        default=64,
        ge=1,
        le=10_000,
        description="Messages fetched ahead for each child; batches grow from them.",
    )
    threads: int | None = Field(
        default=None,
        ge=1,
        le=512,
        description="Compute threads of a child; unset: the cores divided by the children.",
    )
    batch_tokens: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Padded tokens of one model call; unset: what suits device and backend.",
    )
    handover_documents: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="Documents of small messages that an idle child is handed together; unset: 64, "
        "on a GPU 1,024.",
    )
    handover_tokens: int | None = Field(
        default=None,
        ge=1,
        description="The same in tokens, estimated from length; unset: 8,192, on a GPU 131,072. "
        "Smaller answers sooner.",
    )
    poison_losses: int = Field(
        default=3,
        ge=1,
        le=100,
        description="Processes a document may take down while alone; then it is a dead letter.",
    )
    dead_letters: int = Field(
        default=10_000, ge=1, description="Dead letters kept; the oldest go first."
    )
    dead_letter_bytes: int = Field(
        default=64 * MIB, ge=1024, description="The same in bytes, texts included."
    )
    queue_limit: int = Field(
        default=10_000,
        ge=1,
        description="Texts accepted and not yet settled, over all web processes; then 429.",
    )
    queue_bytes: int = Field(
        default=256 * MIB,
        ge=1024,
        description="The same in bytes of text and metadata; keep it well below maxmemory.",
    )
    max_request_documents: int = Field(
        default=4096, ge=1, le=100_000, description="Documents of one request; then 413."
    )
    max_request_bytes: int = Field(
        default=32 * MIB, ge=1024, description="Body bytes of one request; then 413."
    )
    max_uploads: int = Field(
        default=8, ge=1, description="NDJSON uploads at once of one web process; then 429."
    )
    max_text_bytes: int = Field(default=MIB, ge=1, description="UTF-8 bytes of one text; then 422.")
    max_metadata_bytes: int = Field(
        default=64 * 1024, ge=2, description="JSON bytes of one document's metadata; then 422."
    )
    query_limit: int = Field(
        default=4096,
        ge=1,
        description="Texts of queries that wait for an answer, over all web processes; then 429.",
    )
    query_timeout_s: float = Field(
        default=30.0, gt=0, le=3600, description="Seconds a query waits for an answer; then 503."
    )
    api_keys_file: Path | None = Field(
        default=None,
        description="API keys of `embedmill keys`; unset: the web answers this machine only.",
    )
    api_key: SecretStr | None = Field(
        default=None, description="The API key that `embedmill` itself sends."
    )
    job_ttl_s: int = Field(
        default=24 * 3600, ge=60, description="Seconds a settled job can still be asked for."
    )
    visibility_timeout_s: int = Field(
        default=60,
        ge=10,
        description="Seconds after which what a dead worker held is delivered again.",
    )
    atomic_fetch: bool = Field(
        default=True,
        description="Fetch without a moment in which a killed worker loses messages; "
        "`false`: kombu's own fetch.",
    )
    stall_s: int = Field(
        default=120, ge=1, description="Seconds without progress after which /readyz turns red."
    )
    store_wait_s: float = Field(
        default=300.0,
        gt=0,
        description="Seconds a child waits for an absent store before it gives its work back.",
    )
    load_timeout_s: int = Field(
        default=600, ge=10, description="Seconds a pool child may take to load its model."
    )
    log_format: Literal["text", "json"] = Field(
        default="text",
        description="Of the logs of web and workers: for people, or an object a line.",
    )
    log_queue_s: float | None = Field(
        default=None,
        ge=0.1,
        description="Seconds between log lines of each process with its pid and the queue; "
        "unset: none.",
    )
    data_dir: Path = Field(
        default=Path("data"), description="Where `embedmill up` keeps Redis' and Qdrant's files."
    )
    cache_dir: Path = Field(
        default=Path("~/.cache/embedmill"),
        description="Where converted models are kept, and how far interrupted ingestions came; "
        "may be deleted at any time.",
    )
    fake_dimension: int = Field(default=384, ge=2, le=4096, description="Of the fake encoder.")
    fake_call_ms: float = Field(
        default=0.0, ge=0, description="Simulated cost of a call of the fake encoder."
    )
    fake_text_ms: float = Field(
        default=0.0, ge=0, description="Simulated cost of each text of such a call."
    )
    fake_poison: bool = Field(
        default=False,
        description="The fake encoder's process dies of texts with `embedmill:kill-this-process`.",
    )

    @field_validator("broker_url")
    @classmethod
    def _is_redis(cls, url: str) -> str:
        parts = split_url(url)
        database = parts.path.strip("/")
        if parts.scheme not in {"redis", "rediss"} or not parts.hostname:
            raise ValueError("must be a URL like redis://host:6379/0, or rediss://")
        if database and not database.isdigit():
            raise ValueError("must end with the number of a database, as in redis://host:6379/0")
        if parts.scheme == "rediss" and "ssl_cert_reqs" not in parts.query:
            # Celery's result store wants it said; to check is redis' default
            query = "&".join(filter(None, (parts.query, "ssl_cert_reqs=required")))
            return urlunsplit(parts._replace(query=query))
        return url

    @field_validator("broker_url", "qdrant_url")
    @classmethod
    def _names_a_ca(cls, url: str) -> str:
        for path in parse_qs(split_url(url).query).get("ssl_ca_certs", []):
            if not Path(path).is_file():
                raise ValueError(f"ssl_ca_certs={path} is no file")
        return url

    @field_validator("api_keys_file")
    @classmethod
    def _is_expanded(cls, path: Path | None) -> Path | None:
        return path and path.expanduser()

    @field_validator("qdrant_url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        if split_url(url).scheme not in {"http", "https"} or not split_url(url).hostname:
            raise ValueError("must be an http:// or https:// URL")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _relations(self) -> "Settings":
        if self.max_text_bytes > self.queue_bytes:
            raise ValueError(
                f"{PREFIX}MAX_TEXT_BYTES ({self.max_text_bytes}) is above "
                f"{PREFIX}QUEUE_BYTES ({self.queue_bytes}): such a text could never be accepted"
            )
        if self.job_ttl_s <= self.visibility_timeout_s:
            raise ValueError(
                f"{PREFIX}JOB_TTL_S ({self.job_ttl_s}) must exceed "
                f"{PREFIX}VISIBILITY_TIMEOUT_S ({self.visibility_timeout_s}): "
                "a late delivery must still find its settled job"
            )
        return self

    @property
    def file(self) -> Path | None:
        """The settings file that was read; None where there is none."""
        return self._file

    @property
    def model_name(self) -> str:
        """The name that payloads and collections carry: never a path of this machine."""
        if self.model == DEFAULT_MODEL.partition("/")[2]:
            return DEFAULT_MODEL
        folder = Path(self.model).expanduser()
        is_path = folder.is_absolute() or self.model.startswith((".", "~")) or folder.is_dir()
        return folder.resolve().name if is_path else self.model

    def redacted(self) -> dict[str, str]:
        """Settings for logs: URLs without credentials."""
        values = {name: str(value) for name, value in self.model_dump().items()}
        return values | {name: redact(values[name]) for name in ("broker_url", "qdrant_url")}


def read_settings(environment: Mapping[str, str], data_dir: Path | None = None) -> Settings:
    """Settings from the process environment, which `environment` must be (a copy of), and from the
    settings file of `data_dir`, or else of EMBED_DATA_DIR.

    Raises SettingsError with one sentence that names the variable and says what to change.
    """
    _refuse_unknown(environment)
    folder = data_dir or _given(environment).get(settings_file.DATA_DIR) or _default("data_dir")
    path = Path(folder) / settings_file.NAME
    values = settings_file.read(path)
    _refuse_unknown(values, place=f"{path}: ")
    try:
        settings = Settings(_env_file=path if values else None)
    except ValidationError as error:
        own = {name.upper() for name in values} - _given(environment).keys()
        raise SettingsError(_sentence(error, path, own)) from error
    settings._file = path.resolve() if values else None
    return settings


@cache
def get_settings() -> Settings:
    """This process' settings, read once. Raises SettingsError."""
    return read_settings(os.environ)


def settings_for(data_dir: Path | None) -> Settings:
    """The settings of a stack on another data directory than EMBED_DATA_DIR, with its file; None:
    this process' own. Raises SettingsError."""
    return get_settings() if data_dir is None else read_settings(os.environ, data_dir)


def child_environment(file: Path | None = None, **overrides: str) -> dict[str, str]:
    """This process' environment with changes, for processes that it starts: what the settings file
    says goes along, as they may have another data directory."""
    given = _given(os.environ)
    values = settings_file.read(file) if file else {}
    own = {name: value for name, value in values.items() if name.upper() not in given}
    return {**os.environ, **own, **overrides}


def given_names() -> frozenset[str]:
    """The names of this process' environment that are not empty, in capitals."""
    return frozenset(_given(os.environ))


def share_threads(threads: int) -> None:
    """Cap the thread pools of numeric libraries in processes forked or started from here.

    They read these variables when they are first imported, so this comes before any of them.
    """
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # oneDNN keeps code for 1,024 shapes of a batch: 70 MB more than for 32, and no faster
    os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] = "32"


def read_visible_gpus() -> list[str] | None:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves to this process; None when it leaves all."""
    value = os.environ.get("CUDA_VISIBLE_DEVICES")
    return None if value is None else [name.strip() for name in value.split(",") if name.strip()]


def show_gpu(name: str) -> None:
    """Leave one GPU to this process; before it asks CUDA for one."""
    os.environ["CUDA_VISIBLE_DEVICES"] = name


def count_threads() -> int:
    """Compute threads of this process as `share_threads` has set them; 0: as many as cores."""
    return int(os.environ.get("OMP_NUM_THREADS") or 0)


def _given(environment: Mapping[str, str]) -> dict[str, str]:
    """Upper-case names, and no empty values: they count as unset."""
    return {name.upper(): value for name, value in environment.items() if value}


def _default(field: str) -> Path:
    value: Path = Settings.model_fields[field].default
    return value


def _refuse_unknown(names: Iterable[str], place: str = "") -> None:
    """In a settings file, the `place`, every name has to be ours."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for name in sorted(names):
        if (place or name.upper().startswith(PREFIX)) and name.upper() not in known:
            near = difflib.get_close_matches(name.upper(), known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise SettingsError(f"{place}{name} is not a setting of Embedmill{hint}")


def _sentence(error: ValidationError, file: Path, in_file: Collection[str]) -> str:
    """One sentence; `in_file` are the names whose values come from `file`."""
    first = error.errors(include_url=False, include_context=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return message
    name = PREFIX + str(first["loc"][0]).upper()
    value = redact(first["input"]) if name.endswith("_URL") else first["input"]
    place = f"{file}: " if name in in_file else ""
    return f"{place}{name}={value!r}: {message[:1].lower()}{message[1:]}"
