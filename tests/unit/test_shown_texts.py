"""Texts of others on our terminal: as they are, and without commands to it."""

import io

from rich.console import Console

from compose.job import describe as describe_job
from compose.search import Hit
from compose.search import describe as describe_hit
from webapp.schemas import JobOut


def test_brackets_in_a_failed_document_are_no_markup() -> None:
    job = JobOut.model_validate(
        {
            "job_id": "a-job",
            "state": "done",
            "collection": "documents",
            "model": "a[/b]model",
            "accepted": 1,
            "done": 0,
            "failed": 1,
            "cancelled": 0,
            "truncated": 0,
            "points": 0,
            "rate_per_s": 0.0,
            "eta_s": None,
            "created_at": 0.0,
            "settled_at": 1.0,
            "errors": [{"index": 0, "id": "[/x]", "code": "c", "detail": "[red]\x1b[2J:cat:"}],
        }
    )
    stream = io.StringIO()
    Console(file=stream, width=120).print(describe_job(job))
    assert "document 0 ([/x]): [red][2J:cat:" in stream.getvalue()
    assert "a[/b]model" in stream.getvalue()


def test_a_hit_sends_no_commands_to_the_terminal() -> None:
    hit = Hit(0.5, "a\x1b]0;title\x07 b\x9b2J", "id\x1b[2J", 0, 1, {"k": "\x9b"})
    shown = describe_hit(hit)
    assert shown == '0.500  a]0;title b2J\n       id[2J  {"k":""}'
