"""Messages of a later version than this worker's. Used by `workers.batching`, in the main process.

After a downgrade, or where workers are upgraded last, a worker meets messages that it cannot read.
It holds them, as it holds what waits for a child: they are neither run nor acknowledged, and go
back to the queue when it ends. Giving them back at once would only bring them again at once.
"""

import logging
from collections.abc import Callable
from typing import Any

from tasks.messages import HEADER, VERSION

logger = logging.getLogger(__name__)

Handle = Callable[..., Any]
"""What Celery calls with a message, its body, and how to acknowledge or reject it."""


def hold_newer(handle: Handle) -> Handle:
    """Handle messages that this version can read."""

    def handle_or_hold(message: Any, *arguments: Any, **options: Any) -> Any:
        version = find_version(message.headers)
        if version <= VERSION:
            return handle(message, *arguments, **options)
        logger.error(
            "task %s is a message of version %d, this worker reads %d: it stays unread until this "
            "worker ends; upgrade it",
            message.headers.get("id"),
            version,
            VERSION,
        )
        return None

    return handle_or_hold


def find_version(headers: Any) -> int:
    """Of a message; 0 where it is a foreign producer's, or makes no sense, which is found later."""
    place = headers.get(HEADER) if isinstance(headers, dict) else None
    version = place.get("v") if isinstance(place, dict) else None
    return version if isinstance(version, int) else 0
