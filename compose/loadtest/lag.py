"""Whether the load generator itself was too slow: then it has measured itself, not the web."""

import asyncio
import time
from dataclasses import dataclass

from compose.loadtest.latencies import Latencies

TICK_S = 0.02
LATE_S = 0.01
BUSY_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class Generator:
    """How late this process woke up, and its share of a core, of which it can use one."""

    lateness: Latencies
    cpu_share: float

    @property
    def too_slow(self) -> bool:
        """One wake-up in a hundred was late, or there was no CPU time left."""
        return self.lateness.percentile(99) > LATE_S or self.cpu_share > BUSY_SHARE


class Lag:
    """Measures this process while it sends."""

    def __init__(self) -> None:
        self._lateness = Latencies()
        self._began_s, self._cpu_s = time.monotonic(), time.process_time()

    async def watch(self) -> None:
        """For ever."""
        while True:
            before_s = time.monotonic()
            await asyncio.sleep(TICK_S)
            self._lateness.record(time.monotonic() - before_s - TICK_S)

    def read(self) -> Generator:
        """From the beginning until now."""
        passed_s = max(time.monotonic() - self._began_s, 1e-9)
        return Generator(self._lateness, (time.process_time() - self._cpu_s) / passed_s)
