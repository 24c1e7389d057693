"""Whether this machine's worker works: `python -m compose.health`, a health check of compose.yaml.

Ends with 0 when a worker of this host name has announced itself with a loaded model, else says why
not and ends with 1.
"""

import socket
import sys

import redis

from tasks.broker import connect
from tasks.presence import workers
from tasks.settings import Settings, get_settings


def find_fault(settings: Settings, host: str) -> str:
    """What keeps the worker of that host from working; empty when nothing does."""
    with connect(settings) as client:
        try:
            found = [worker for worker in workers(client) if worker.name.endswith(f"@{host}")]
        except redis.RedisError as error:
            return f"Redis does not answer: {error}"
    if not found:
        return f"no worker of {host} has announced itself"
    return "" if any(worker.warm for worker in found) else "no child has loaded the model"


if __name__ == "__main__":
    sys.exit(find_fault(get_settings(), socket.gethostname()) or 0)
