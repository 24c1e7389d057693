"""Being asked to stop: once to drain, again to hurry. Only `compose` imports it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_INTERRUPTED = 130
"""As shells have it: 128 and SIGINT's number."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruption:
    """Counts requests in a plain integer: locks and events are not safe in a signal handler."""

    def __init__(self) -> None:
        self.requests = 0

    def request(self) -> None:
        self.requests += 1


def wanted_signals() -> list[signal.Signals]:
    """Those that ask to stop here."""
    nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [number for number in SIGNALS if number != signal.SIGHUP or not nohup]


@contextmanager
def interruption_by_signals() -> Iterator[Interruption]:
    """Ctrl-C, SIGTERM and a closed terminal become requests; under `nohup` a closed terminal does
    not. Only in the main thread."""
    interruption = Interruption()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        interruption.request()

    before = {number: signal.signal(number, on_signal) for number in wanted_signals()}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
