"""Embedmill's HTTP API as its own commands use it; only `compose` imports it.

One call is one request; `compose.patience` repeats those that may succeed later.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, Self, TypeVar
from urllib.parse import quote

import httpx
import orjson
from pydantic import BaseModel, ValidationError

from compose.addresses import split_web
from compose.errors import WebBusy, WebDown, WebRefused
from tasks.errors import JobNotFound
from tasks.settings import get_settings
from tasks.urls import redact
from webapp.schemas import (
    Accepted,
    JobOut,
    LetterList,
    LetterOut,
    Problem,
    Purged,
    Readiness,
    Replayed,
)

TIMEOUT_S = 15.0
"""The web answers within two seconds even without its Redis; a large body takes a while."""
DEFAULT_RETRY_AFTER_S = 1.0
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

Answer = TypeVar("Answer", bound=BaseModel)


class WebClient:
    """A connection pool to one web; may be used from several threads."""

    def __init__(self, url: str) -> None:
        """Raises WebRefused for what is not an HTTP URL."""
        self.url = url
        # a proxy for the internet does not know this machine
        direct = split_web(url).hostname in LOOPBACK
        key = get_settings().api_key
        headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}
        try:
            self._client = httpx.Client(
                base_url=url, timeout=TIMEOUT_S, trust_env=not direct, headers=headers
            )
        except httpx.InvalidURL as error:
            raise WebRefused(f"{redact(url)!r} is not a URL: {error}", status=0) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def embed(self, documents: Sequence[bytes], options: dict[str, str], key: str) -> Accepted:
        """Documents, each as JSON, as one job, and as the same one when it is repeated with the
        same key. Raises WebBusy, WebDown, WebRefused."""
        fields = orjson.dumps(options)[1:]
        body = b'{"documents":[%b]' % b",".join(documents) + (b"," if options else b"") + fields
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        return self._call(Accepted, "POST", "/embed", content=body, headers=headers)

    def job(self, job_id: str) -> JobOut:
        """Raises JobNotFound, WebDown, WebRefused."""
        return self._job("GET", job_id)

    def cancel(self, job_id: str) -> JobOut:
        """Cancel what has not started. Raises JobNotFound, WebDown, WebRefused."""
        return self._job("DELETE", job_id)

    def letters(self, limit: int, cursor: str | None, code: str | None) -> LetterList:
        """A page of dead letters. Raises WebDown, WebRefused."""
        given = {"limit": limit, "cursor": cursor, "code": code}
        params = {name: value for name, value in given.items() if value is not None}
        return self._call(LetterList, "GET", "/dead", params=params)

    def letter(self, letter_id: str) -> LetterOut:
        """Raises WebDown, WebRefused."""
        return self._call(LetterOut, "GET", f"/dead/{quote(letter_id, safe='')}")

    def replay(self, wanted: Mapping[str, object]) -> Replayed:
        """Accept letters anew: `ids`, `code` or `all`. Raises WebBusy, WebDown, WebRefused."""
        return self._call(Replayed, "POST", "/dead/replay", content=orjson.dumps(wanted))

    def purge_letter(self, letter_id: str) -> Purged:
        """Raises WebDown, WebRefused."""
        return self._call(Purged, "DELETE", f"/dead/{quote(letter_id, safe='')}")

    def purge_letters(self, code: str | None) -> Purged:
        """All, or those of a code. Raises WebDown, WebRefused."""
        params = {} if code is None else {"code": code}
        return self._call(Purged, "DELETE", "/dead", params=params)

    def readiness(self) -> Readiness:
        """Of the whole pipeline. Raises WebDown, WebRefused."""
        response = self._send("GET", "/readyz")
        with suppress(ValidationError):
            return Readiness.model_validate_json(response.content)
        if not response.is_error or response.status_code == httpx.codes.NOT_FOUND:
            raise self._stranger(response)
        raise self._error(response)

    def _job(self, method: Literal["GET", "DELETE"], job_id: str) -> JobOut:
        try:
            return self._call(JobOut, method, f"/jobs/{quote(job_id, safe='')}")
        except WebRefused as error:
            if error.code == JobNotFound.default_code:
                raise JobNotFound(error.detail) from error
            raise

    def _call(self, kind: type[Answer], method: str, path: str, **content: Any) -> Answer:
        response = self._send(method, path, **content)
        if not response.is_success:
            raise self._error(response)
        try:
            return kind.model_validate_json(response.content)
        except ValidationError as error:
            raise self._stranger(response) from error

    def _send(self, method: str, path: str, **content: Any) -> httpx.Response:
        try:
            return self._client.request(method, path, **content)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = str(error) or type(error).__name__
            raise WebDown(f"no web answers at {redact(self.url)} ({reason})") from error

    def _stranger(self, response: httpx.Response) -> WebRefused:
        return WebRefused(
            f"{redact(self.url)} does not answer as Embedmill does", status=response.status_code
        )

    def _error(self, response: httpx.Response) -> WebBusy | WebDown | WebRefused:
        problem = _problem(response)
        if response.status_code == httpx.codes.TOO_MANY_REQUESTS:
            return WebBusy(problem.detail, retry_after_s=_retry_after_s(response))
        if response.is_server_error:
            return WebDown(f"{redact(self.url)}: {problem.detail}")
        return WebRefused(
            problem.detail, status=problem.status, code=problem.code, index=problem.index
        )


def _problem(response: httpx.Response) -> Problem:
    """What it says, also where something between us and the web has answered."""
    with suppress(ValidationError):
        return Problem.model_validate_json(response.content)
    status = response.status_code
    title = response.reason_phrase
    return Problem(title=title, status=status, detail=f"{status} {title}".strip(), code="http")


def _retry_after_s(response: httpx.Response) -> float:
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else DEFAULT_RETRY_AFTER_S
