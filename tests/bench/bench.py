"""One run of the benchmark: what is wanted, at which scale, where, and what has been found."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import redis
from qdrant_client.http.exceptions import ApiException

from tasks.errors import EmbedError
from tests.bench.measures import KEYS
from tests.bench.results import BenchError, Results
from tests.bench.scale import Scale

logger = logging.getLogger(__name__)

FAILURES = (
    *(BenchError, EmbedError, AssertionError, OSError, EOFError, TimeoutError),
    *(redis.RedisError, ApiException),
)


@dataclass
class Bench:
    """`only` empty: all keys and the profile, and the extra parts where the scale has them."""

    scale: Scale
    folder: Path
    cores: int
    results: Results
    only: frozenset[str] = frozenset()
    infinity_python: Path | None = None

    def wants(self, *keys: str) -> bool:
        """Any of these."""
        if self.only:
            return bool(self.only.intersection(keys))
        return self.scale.extras or bool({*KEYS, "profile"}.intersection(keys))

    def part(self, measure: Callable[[], None], *keys: str) -> None:
        """Measure them if any is wanted; one that fails is missing, with its reason, and the others
        are measured all the same."""
        if not self.wants(*keys):
            return
        logger.info("%s", ", ".join(keys))
        began_s = time.monotonic()
        try:
            measure()
        except FAILURES as error:
            reason = str(error).strip() or type(error).__name__
            logger.warning("  missing: %s", reason)
            for key in keys:
                if self.wants(key) and key not in self.results.details:
                    self.results.miss(key, reason.splitlines()[0])
        logger.info("  took %.0f s", time.monotonic() - began_s)
