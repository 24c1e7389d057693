"""A small process beside the launcher that stops its children when it is killed.

`python -m compose.guardian DATA_DIR`, started by `compose.supervisor` with a pipe as standard
input. A farewell on the pipe: nothing is left to do. Its end without one: the launcher is gone.
"""

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from compose.claim import claim
from compose.errors import DataDirBusy
from compose.output import Output
from compose.process import ROOT
from compose.recovery import recover

FAREWELL = b"done\n"
STOP_TIMEOUT_S = 10.0


class Guardian:
    """The launcher's side: holds the pipe, says farewell."""

    def __init__(self, data_dir: Path) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "compose.guardian", str(data_dir)],
            stdin=subprocess.PIPE,
            cwd=ROOT,
            start_new_session=True,
        )

    def dismiss(self) -> None:
        """After this a killed launcher is nobody's business."""
        with suppress(BrokenPipeError, subprocess.TimeoutExpired):
            self._popen.communicate(FAREWELL, timeout=STOP_TIMEOUT_S)


def watch(data_dir: Path) -> None:
    """Wait for the launcher's end, and clear up unless it said farewell."""
    if sys.stdin.buffer.read():
        return
    output = Output(sys.stderr)
    with suppress(DataDirBusy), claim(data_dir, "guardian", on_wait=_give_way):
        recover(data_dir, output, hurried=lambda: False)


def _give_way() -> None:
    raise DataDirBusy("the next start is already clearing up")


if __name__ == "__main__":
    watch(Path(sys.argv[1]))
