"""From a thread's stack to the stage it is in. Pure.

By files and functions that do not change when the pipeline is rebuilt: libraries, and the seams.
"""

from collections.abc import Sequence

IDLE = "idle"
MODEL, TOKENIZE, AROUND = "model", "tokenize", "around the model"
STORE, LEDGER, OTHER = "store", "ledger", "other"

_WAITS = frozenset({"wait", "get", "_wait_for_tstate_lock", "select", "poll", "join"})
_BY_FILE = (
    ("/transformers/models/", MODEL),
    ("/transformers/tokenization", TOKENIZE),
    ("/tokenizers/", TOKENIZE),
    ("/semantic_text_splitter/", TOKENIZE),
    ("/workers/chunks.py", TOKENIZE),
    ("/workers/packing.py", MODEL),
    ("/onnxruntime/", MODEL),
    ("/workers/store.py", STORE),
    ("/qdrant_client/", STORE),
    ("/httpx/", STORE),
    ("/redis/", LEDGER),
    ("/sentence_transformers/", AROUND),
    ("encoder.py", AROUND),
    ("/workers/", OTHER),
    ("/tasks/", OTHER),
    ("/celery/app/trace.py", OTHER),
)
_BY_FUNCTION = {"count_tokens": TOKENIZE, "tokenize": TOKENIZE}
_IDLE_FILES = ("/billiard/", "/kombu/", "/celery/concurrency/")


def name_stage(calls: Sequence[tuple[str, str]]) -> str:
    """`calls` are (file, function), the innermost first. Stages win over what calls them: the first
    call from the inside that belongs to one decides. A thread that waits for another is idle."""
    if not calls or _waits(calls[0]):
        return IDLE
    for file, function in calls:
        if stage := _BY_FUNCTION.get(function) if "/workers/" in file else None:
            return stage
        for part, stage in _BY_FILE:
            if part in file:
                return stage
        if any(part in file for part in _IDLE_FILES):
            return IDLE
    return IDLE


def _waits(innermost: tuple[str, str]) -> bool:
    file, function = innermost
    return file.endswith(("/threading.py", "/queue.py")) and function in _WAITS
