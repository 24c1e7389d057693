"""How it is done: what runs inside `celery -A workers worker`.

Importing it connects the worker's start-up to the Celery app and loads nothing heavy:
that comes when the worker starts.
"""

from tasks import app
from workers import delivery, startup

delivery.install(app)
startup.install(app)

__all__ = ["app"]
