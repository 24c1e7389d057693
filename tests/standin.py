"""A service for tests of supervision: `python -m tests.standin FOLDER NAME [BEHAVIOUR]`.

It notes in FOLDER/events what happens to it, and makes FOLDER/NAME.ready when it is ready.
"""

import signal
import subprocess
import sys
import threading
from enum import StrEnum
from pathlib import Path
from types import FrameType

ORPHAN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.pause()"


class Behaviour(StrEnum):
    ORDINARY = "ordinary"
    STUBBORN = "stubborn"
    """Ignores SIGTERM."""
    PARENT = "parent"
    """Leaves a child behind that ignores SIGTERM, and whose environment tells nothing."""
    RUNAWAY = "runaway"
    """Leaves a child behind that ignores SIGTERM, in a session of its own."""
    BROKEN = "broken"
    """Ends while it starts."""
    SHORT = "short"
    """Ends once FOLDER/NAME.end is there."""


def note(folder: Path, event: str) -> None:
    with (folder / "events").open("a") as events:
        events.write(f"{event}\n")


def leave(folder: Path, name: str, orphan: "subprocess.Popen[bytes]") -> None:
    (folder / f"{name}.orphan").write_text(str(orphan.pid))


def serve(folder: Path, name: str, behaviour: Behaviour) -> None:
    def on_term(_number: int, _frame: FrameType | None) -> None:
        note(folder, f"TERM {name}")
        if behaviour is not Behaviour.STUBBORN:
            sys.exit(0)

    signal.signal(signal.SIGTERM, on_term)
    if behaviour is Behaviour.BROKEN:
        sys.exit("the configuration is wrong")
    if behaviour is Behaviour.PARENT:
        leave(folder, name, subprocess.Popen([sys.executable, "-c", ORPHAN], env={}))
    if behaviour is Behaviour.RUNAWAY:
        orphan = subprocess.Popen([sys.executable, "-c", ORPHAN], start_new_session=True)
        leave(folder, name, orphan)
    never = threading.Event()
    (folder / f"{name}.ready").touch()
    while not (folder / f"{name}.end").exists():
        never.wait(0.05)
    sys.exit(3)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2], Behaviour(sys.argv[3]))
