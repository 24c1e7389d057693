"""What the local stack knows of a service before it runs; only `compose` imports it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

NAMES = ("redis", "qdrant", "worker", "web", "flower")
"""Of all services, in start order."""

Probe = Callable[[int], str]
"""Takes the service's pid (0 when it runs elsewhere); says what is missing, nothing when ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A program, how to see that it is ready, and how long its start and stop may take.

    Without a `command` it runs elsewhere and is only probed. `details` go to stack.json; `advice`
    says what to change when it does not become ready.
    """

    name: str
    probe: Probe
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    url: str = ""
    advice: str = ""
    details: Mapping[str, str] = field(default_factory=dict)
    start_timeout_s: float = 60.0
    stop_timeout_s: float = 15.0
