"""Every error that Embedmill raises on purpose; any of our packages may import it.

    EmbedError
    ├── SettingsError           a setting is unknown, malformed or contradicts another
    ├── RequestError            what was asked for cannot be accepted as it stands
    │   ├── InvalidJson         the body is not JSON in UTF-8
    │   ├── InvalidRequest      an option is wrong
    │   ├── InvalidDocument     one document is wrong; says which
    │   ├── RequestTooLarge     larger than could ever be accepted
    │   └── KeyReused           its Idempotency-Key belongs to a request that says something else
    ├── RequestRepeated         it was accepted before; says what it has left
    ├── ComeBackLater           there is no room now; says when
    │   ├── QueueFull           accepted and unsettled work has reached its limit
    │   │   └── TooManyUploads  as many uploads run at once as may
    │   └── RateExceeded        an API key has sent as many texts as it may
    ├── TooManyStreams          a web process serves as many event streams as it may
    ├── UploadMoved             another upload with the same Idempotency-Key has gone on
    ├── UploadSilent            nothing more of an upload has come for long
    ├── ShuttingDown            this process ends before an upload does
    ├── BrokerDown              Redis does not answer
    ├── JobNotFound             no such job, or its record has expired
    ├── NoAnswer                no worker has answered a query in time
    ├── CollectionNotFound      there is no such collection to search
    ├── ModelNotFound           the workers run another model than the one asked for
    ├── LetterNotFound          no such dead letter: it was replayed, purged, or made room
    ├── DocumentsFailed         every document of a task failed
    ├── ModelMismatch           the collection was made by another model
    ├── ModelError              the model cannot be loaded, or made something that is not a vector
    │   ├── EncoderBroken       the model fails for every text; its process has to be replaced
    │   └── TextTooLong         longer than the model reads, and `on_long` is `error`
    └── StoreError
        ├── StoreDown           the vector store does not answer, or is too busy
        └── StoreRejected       the vector store refused what it was sent

`code` is stable and machine readable; `retryable` says whether the same call may succeed later.
"""

from typing import Any, ClassVar


class EmbedError(Exception):
    """The root: a sentence for people, `code` for programs."""

    default_code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str, *, code: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or self.default_code

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors cross process borders in Celery: rebuild from attributes, not from `args`."""
        return _rebuild, (type(self), self.__dict__)


def _rebuild(kind: type[EmbedError], state: dict[str, Any]) -> EmbedError:
    error = kind.__new__(kind, state["detail"])
    Exception.__init__(error, state["detail"])
    error.__dict__.update(state)
    return error


class SettingsError(EmbedError):
    default_code = "settings_invalid"


class RequestError(EmbedError):
    default_code = "request_invalid"


class InvalidJson(RequestError):
    default_code = "json_invalid"


class InvalidRequest(RequestError):
    default_code = "request_invalid"


class InvalidDocument(RequestError):
    """`index` is the offending document's position in the request, from 0."""

    default_code = "document_invalid"

    def __init__(self, detail: str, *, index: int, code: str | None = None) -> None:
        super().__init__(detail, code=code)
        self.index = index


class RequestTooLarge(RequestError):
    default_code = "request_too_large"


class KeyReused(RequestError):
    default_code = "idempotency_key_reused"


class RequestRepeated(EmbedError):
    """`found` is the mark that stands in Redis."""

    default_code = "request_repeated"

    def __init__(self, detail: str, *, found: str) -> None:
        super().__init__(detail)
        self.found = found


class ComeBackLater(EmbedError):
    """`retry_after_s` is when the same call may succeed."""

    retryable = True

    def __init__(self, detail: str, *, retry_after_s: int) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class QueueFull(ComeBackLater):
    """There should be room again then, by the measured drain rate."""

    default_code = "queue_full"


class RateExceeded(ComeBackLater):
    """The texts that were refused will fit in then."""

    default_code = "rate_limit_exceeded"


class TooManyStreams(EmbedError):
    default_code = "too_many_streams"
    retryable = True


class TooManyUploads(QueueFull):
    default_code = "too_many_uploads"


class UploadSilent(EmbedError):
    default_code = "upload_silent"
    retryable = True


class ShuttingDown(EmbedError):
    default_code = "shutting_down"
    retryable = True


class UploadMoved(EmbedError):
    default_code = "upload_moved"
    retryable = True


class BrokerDown(EmbedError):
    default_code = "broker_down"
    retryable = True


class JobNotFound(EmbedError):
    default_code = "job_not_found"


class NoAnswer(EmbedError):
    default_code = "no_answer"
    retryable = True


class CollectionNotFound(EmbedError):
    default_code = "collection_not_found"


class ModelNotFound(EmbedError):
    default_code = "model_not_found"


class LetterNotFound(EmbedError):
    default_code = "letter_not_found"


class DocumentsFailed(EmbedError):
    default_code = "documents_failed"


class ModelMismatch(EmbedError):
    default_code = "model_mismatch"


class ModelError(EmbedError):
    default_code = "model_error"


class EncoderBroken(ModelError):
    default_code = "encoder_broken"
    retryable = True


class TextTooLong(ModelError):
    default_code = "text_too_long"


class StoreError(EmbedError):
    default_code = "store_error"


class StoreDown(StoreError):
    default_code = "store_down"
    retryable = True


class StoreRejected(StoreError):
    default_code = "store_rejected"
