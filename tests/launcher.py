"""A launcher of stand-ins: `python -m tests.launcher DATA_DIR FOLDER NAME=BEHAVIOUR...`."""

import sys
from pathlib import Path

from compose.interruption import interruption_by_signals
from compose.output import Output
from compose.service import Service
from compose.supervisor import Supervisor
from tasks.settings import child_environment
from tests.standin import Behaviour


def standin(
    folder: Path, name: str, behaviour: Behaviour, *, stop_timeout_s: float = 30.0
) -> Service:
    """A service that is ready when it says so."""

    def probe(_pid: int) -> str:
        return "" if (folder / f"{name}.ready").exists() else "has not said that it is ready"

    return Service(
        name=name,
        command=(sys.executable, "-m", "tests.standin", str(folder), name, behaviour),
        environment=child_environment(),
        probe=probe,
        stop_timeout_s=stop_timeout_s,
    )


def launch(data_dir: Path, services: list[Service]) -> None:
    output = Output(sys.stdout)
    with (
        interruption_by_signals() as interruption,
        Supervisor(data_dir, output, interruption) as supervisor,
    ):
        for service in services:
            supervisor.start(service)
        output.say("all ready")
        supervisor.wait()


if __name__ == "__main__":
    pairs = [argument.split("=") for argument in sys.argv[3:]]
    folder = Path(sys.argv[2])
    launch(Path(sys.argv[1]), [standin(folder, name, Behaviour(kind)) for name, kind in pairs])
