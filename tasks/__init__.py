"""The contract of Embedmill: settings, messages, errors, the Celery app, the task and the ledger.

    from tasks import embed
    embed.delay("hello world")

Light: importing it loads neither torch nor a web framework nor a vector store's client.
"""

from tasks.celery import app
from tasks.embedding import embed
from tasks.querying import query

__all__ = ["app", "embed", "query"]
