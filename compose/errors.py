"""What keeps a command of `embedmill` from doing its work; only `compose` imports it.

EmbedError
├── StackError          the local stack cannot start, or has not become ready
│   ├── DataDirBusy     another stack runs on the same data directory
│   ├── ServiceDied     one of its processes ended by itself
│   └── Interrupted     it was asked to stop before it was ready
├── OutOfTime           the budget of `embedmill tune` is spent
├── InputError          a file cannot be read as what its name says; names file and line
├── IngestStopped       not everything was sent; says what was accepted before
└── WebError            a request to the web was not answered as hoped
    ├── WebDown         nobody answers, or not now
    ├── WebBusy         the queue is full; says when to come back
    └── WebRefused      the web does not accept it; says which document is to blame
"""

from tasks.errors import EmbedError


class StackError(EmbedError):
    default_code = "stack_error"


class DataDirBusy(StackError):
    default_code = "data_dir_busy"


class ServiceDied(StackError):
    default_code = "service_died"


class Interrupted(StackError):
    default_code = "interrupted"


class OutOfTime(EmbedError):
    default_code = "out_of_time"


class InputError(EmbedError):
    default_code = "input_invalid"


class IngestStopped(EmbedError):
    default_code = "ingest_stopped"


class WebError(EmbedError):
    default_code = "web_error"


class WebDown(WebError):
    default_code = "web_down"
    retryable = True


class WebBusy(WebError):
    default_code = "web_busy"
    retryable = True

    def __init__(self, detail: str, *, retry_after_s: float) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class WebRefused(WebError):
    """`index` is the offending document's position in the request, if one is to blame."""

    default_code = "web_refused"

    def __init__(
        self, detail: str, *, status: int, code: str | None = None, index: int | None = None
    ) -> None:
        super().__init__(detail, code=code)
        self.status = status
        self.index = index
