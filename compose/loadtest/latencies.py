"""Latencies in bounded memory: a histogram whose buckets are 1 % wide, and the exact maximum."""

import math

LEAST_S = 1e-5
GROWTH = 1.01
BUCKETS = 1 + math.ceil(math.log(86_400 / LEAST_S) / math.log(GROWTH))
"""Up to a day: 2,302 numbers, however many observations there are."""


class Latencies:
    """Observations in seconds."""

    def __init__(self) -> None:
        self._counts = [0] * BUCKETS
        self.count = 0
        self.max_s = 0.0

    def record(self, seconds: float) -> None:
        bucket = math.log(max(seconds, LEAST_S) / LEAST_S) / math.log(GROWTH)
        self._counts[min(int(bucket), BUCKETS - 1)] += 1
        self.count += 1
        self.max_s = max(self.max_s, seconds)

    def percentile(self, percent: float) -> float:
        """The nearest rank's observation, to 0.5 %; seconds, 0 where there is none."""
        rank = math.ceil(round(self.count * percent / 100, 6))
        if not rank:
            return 0.0
        seen = 0
        for bucket, found in enumerate(self._counts):
            seen += found
            if seen >= rank:
                return min(LEAST_S * math.pow(GROWTH, bucket + 0.5), self.max_s)
        raise AssertionError("the buckets hold every observation")
