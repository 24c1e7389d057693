"""Log lines as JSON, for containers whose lines programs read. Any package may import it.

The formats of Celery and uvicorn are for people; with `EMBED_LOG_FORMAT=json` their handlers get
this one instead, so each line is one object with the ids of what it is about.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import orjson
from celery import current_task

from tasks.settings import Settings

IDS = ("job_id", "task_id")
"""Given to a line as `extra`."""
_batch_id: ContextVar[str | None] = ContextVar("_batch_id", default=None)


@contextmanager
def batch(batch_id: str) -> Iterator[None]:
    """Lines of the block belong to this batch."""
    token = _batch_id.set(batch_id)
    try:
        yield
    finally:
        _batch_id.reset(token)


class JsonFormatter(logging.Formatter):
    """One object a line: `time` (UTC), `level`, `logger`, `pid`, `message`, and where there are
    such `job_id`, `task_id`, `batch_id` and `error` (a traceback)."""

    def format(self, record: logging.LogRecord) -> str:
        row = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
            **self._ids(record),
        }
        if record.exc_info:
            row["error"] = self.formatException(record.exc_info)
        return orjson.dumps(row, default=str).decode()

    @staticmethod
    def _ids(record: logging.LogRecord) -> dict[str, Any]:
        found = {name: getattr(record, name, None) for name in IDS}
        found["batch_id"] = _batch_id.get()
        if found["task_id"] is None:
            # Celery says it with its own lines, and knows the task that runs
            said = getattr(record, "data", None)
            running = current_task.request.id if current_task else None
            found["task_id"] = said.get("id") if isinstance(said, dict) else running
        return {name: value for name, value in found.items() if value is not None}


def format_logs(settings: Settings, *loggers: logging.Logger) -> None:
    """Give the handlers of these loggers the format that the settings name."""
    if settings.log_format == "json":
        for logger in loggers:
            for handler in logger.handlers:
                handler.setFormatter(JsonFormatter())
