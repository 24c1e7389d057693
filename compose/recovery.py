"""Ending what a killed launcher left running; only `compose` imports it.

The guardian does it as soon as the launcher is gone, the next start when the guardian was killed
as well.
"""

from collections.abc import Callable
from pathlib import Path

from compose.output import Output
from compose.process import bearers, end, kill
from compose.record import Run, read_run, remove_stack


def recover(data_dir: Path, output: Output, hurried: Callable[[], bool]) -> None:
    """Stop the processes on record, in reverse order, and all that they started.

    The record stays, for the next start to tell of it. Raises StackError when it is damaged.
    """
    remove_stack(data_dir)
    run = read_run(data_dir)
    if run is None:
        return
    output.say(_describe(run, data_dir))
    for identity in reversed(run.processes):
        process = identity.find()
        if process is not None:
            output.say(f"stopping {identity.name} (pid {identity.pid})")
            end(process, timeout_s=identity.stop_timeout_s, hurried=hurried)
    kill(bearers(run.mark))


def _describe(run: Run, data_dir: Path) -> str:
    left = sum(identity.find() is not None for identity in run.processes)
    if not left:
        return f"found an interrupted run in {data_dir}: none of its processes is left"
    noun = "process" if left == 1 else "processes"
    return f"found {left} {noun} of an interrupted run in {data_dir}: stopping them"
