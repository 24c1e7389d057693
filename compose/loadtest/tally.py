"""What became of the requests so far."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import orjson

from compose.loadtest.connection import Reply
from compose.loadtest.latencies import Latencies

TOO_MANY_REQUESTS = 429


@dataclass(slots=True)
class Tally:
    """Counts of requests; latencies of those that were answered with a success."""

    request_texts: int
    answered: int = 0
    refused: int = 0
    """Answers of 429: not errors, the web says when to come back."""
    errors: Counter[str] = field(default_factory=Counter)
    """By the answer's `code`, or `timeout` and `connection` where there was none."""
    unsent: int = 0
    """Due, and not sent before the end: no connection was free."""
    unfinished: int = 0
    """Sent, and not answered before an interruption."""
    given_up: int = 0
    """Refused with 429, and at the end still not accepted."""
    late: int = 0
    """Of an open loop: sent after they were due, because no connection was free, or this process
    was not there in time."""
    answer: Latencies = field(default_factory=Latencies)
    """Of one request: from when it should have been sent to its answer."""
    acceptance: Latencies = field(default_factory=Latencies)
    """The same from the first try on, with the waits that answers of 429 asked for."""

    @property
    def texts(self) -> int:
        return self.answered * self.request_texts

    @property
    def failed(self) -> int:
        return self.errors.total()


def read_code(reply: Reply) -> str:
    """Of an error: a problem's code, or that of an error in OpenAI's shape, or the status."""
    return _field(reply, "code") or f"http_{reply.status}"


def read_detail(reply: Reply) -> str:
    """What an error says, in words."""
    return _field(reply, "detail") or _field(reply, "message") or f"status {reply.status}"


def read_object(reply: Reply) -> dict[str, Any]:
    """Its JSON object; empty where it is something else."""
    try:
        answer = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _field(reply: Reply, name: str) -> str:
    answer = read_object(reply)
    error = answer.get("error")
    value = (error if isinstance(error, dict) else answer).get(name)
    return value if isinstance(value, str) else ""
