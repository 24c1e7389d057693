"""A consumer that gets SIGKILL at a given point: python -m tests.dying_consumer URL POINT KIND.

POINT is a method such as `QoS.append`, which the process does not live to enter; KIND says what it
does with messages before: `ack` or `requeue`. With `stock:` before POINT it uses kombu's transport.
"""

import os
import signal
import sys
from typing import Any

from kombu.transport import redis as stock

from tests.consuming import consuming
from workers import leases, transport


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(point: str) -> None:
    """Replace the method."""
    kind, _, path = point.rpartition(":")
    name, _, method = path.partition(".")
    home = stock if kind else leases if name == "QoS" else transport
    owner = getattr(home, name)
    assert hasattr(owner, method), point
    setattr(owner, method, die)


def main(url: str, point: str, kind: str) -> None:
    arm(point)
    with consuming(url, prefetch=2, stock=point.startswith("stock:")) as consumer:
        while True:
            consumer.turn()
            for message in consumer.messages:
                getattr(message, kind)()
            consumer.messages.clear()


if __name__ == "__main__":
    main(*sys.argv[1:])
