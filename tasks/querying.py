"""The task `tasks.query`: what a worker does with a question. Any package may import it.

Its body imports `workers` when it runs, and only then. Nobody calls it: `POST /v1/embeddings` and
`POST /search` ask, and a message without a place for its answer is refused.
"""

from typing import Any

from celery import Task

from tasks.celery import app
from tasks.messages import QUERY_HEADER, QUERY_TASK_NAME
from tasks.queries import Role


@app.task(
    bind=True,
    name=QUERY_TASK_NAME,
    ignore_result=True,
    Request="workers.request:QueryRequest",
    Strategy="workers.batching:strategy",
)
def query(
    self: "Task[Any, Any]",
    texts: list[str],
    role: Role = "query",
    start: int = 0,
    search: dict[str, Any] | None = None,
) -> None:
    """Answer a question; without texts it was answered together with others."""
    from workers.queries import answer, read_question

    if texts:
        place = getattr(self.request, QUERY_HEADER)
        answer([read_question(place, texts, role, start, search)])
