"""How fast texts drain, and how long a refused client waits for it. Any package may import it."""

import math

IDLE_RETRY_AFTER_S = 30
"""What a refused client is told while nothing drains."""
MAX_RETRY_AFTER_S = 600
DRAIN_TIME_CONSTANT_S = 10.0


def drain_rate(rate: float, at: float, since: float, now: float) -> float:
    """Settled texts a second, from the decaying average that the settle script keeps.

    The average starts at zero; dividing by its weight so far, 1 - exp(-age / T), makes up for it.
    """
    if not at or now - at > 60:
        return 0.0
    age_s = max(now - since, 1.0)
    decayed = rate * math.exp(-(now - at) / DRAIN_TIME_CONSTANT_S)
    return decayed / (1 - math.exp(-age_s / DRAIN_TIME_CONSTANT_S))


def retry_after_s(excess: float, rate_per_s: float) -> int:
    """Whole seconds until `excess` texts have drained, within bounds."""
    if rate_per_s < 0.01:
        return IDLE_RETRY_AFTER_S
    return min(max(math.ceil(excess / rate_per_s), 1), MAX_RETRY_AFTER_S)
