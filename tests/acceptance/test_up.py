"""`embedmill up` as users run it: real servers, real signals, nothing left afterwards."""

import base64
import json
import os
import re
import signal
import stat
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from compose.output import Output
from compose.process import MARK, is_running
from compose.services import Options
from compose.stack import Stack
from tasks.settings import get_settings
from tests.processes import Program, free_port, wait_until
from tests.redis_server import RedisServer

EMBEDMILL = str(Path(sys.executable).parent / "embedmill")
OWN_SERVERS = {"EMBED_BROKER_URL": "", "EMBED_QDRANT_URL": "", "EMBED_MODEL": "fake"}
"""An empty variable counts as unset."""
STORES_ONLY = ("--without", "worker,web,flower")


class Home:
    """A data directory and the launchers on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data_dir = root / "data"
        self.programs: list[Program] = []

    def up(self, *flags: str, env: Mapping[str, str] = OWN_SERVERS) -> Program:
        program = Program(
            [EMBEDMILL, "up", "--data-dir", str(self.data_dir), "--port", "0", *flags],
            log=self.root / f"up-{len(self.programs)}.log",
            env=env,
            cwd=self.root,
        )
        self.programs.append(program)
        return program

    def ready(self, *flags: str, env: Mapping[str, str] = OWN_SERVERS) -> Program:
        program = self.up(*flags, env=env)
        program.wait_until(lambda: "\nReady." in program.output(), "the stack is ready")
        return program

    def stack(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.data_dir / "stack.json").read_text())
        return content

    def family(self) -> set[psutil.Process]:
        """All processes of the run on record, and all that they started."""
        content = json.loads((self.data_dir / "processes.json").read_text())
        leaders = {row["pid"] for row in content["processes"]}
        return {
            process
            for process in psutil.process_iter()
            if process.pid in leaders or mark_of(process) == content["mark"]
        }


def mark_of(process: psutil.Process) -> str:
    try:
        return process.environ().get(MARK, "")
    except (psutil.Error, OSError):
        return ""


def none_left(family: set[psutil.Process]) -> bool:
    return not any(map(is_running, family))


def get(url: str, login: str = "", body: object = None) -> tuple[int, Any]:
    """Status and JSON (or text) of a GET, or of a POST when there is a body."""
    request = urllib.request.Request(url, data=json.dumps(body).encode() if body else None)
    if login:
        request.add_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            text = response.read().decode()
            is_json = "json" in response.headers.get("Content-Type", "")
            return response.status, json.loads(text) if is_json else text
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path)
    yield home
    for program in home.programs:
        program.stop(timeout_s=60)


def embed_one(web_url: str) -> None:
    """Send a text and wait until it is stored."""
    status, job = get(f"{web_url}/embed", body={"texts": ["a text for the mill"]})
    assert status == 202, job
    where = f"{web_url}/jobs/{job['job_id']}"
    wait_until(lambda: get(where)[1]["state"] == "done", "the text is in the store")


def test_the_whole_stack_starts_works_and_stops(home: Home) -> None:
    program = home.ready("--concurrency", "1")
    stack = home.stack()
    assert stat.S_IMODE((home.data_dir / "stack.json").stat().st_mode) == 0o600
    assert list(stack) == ["redis", "qdrant", "worker", "web", "flower"]
    assert all(psutil.pid_exists(entry["pid"]) for entry in stack.values())
    assert get(f"{stack['web']['url']}/readyz")[0] == 200
    embed_one(stack["web"]["url"])

    flower = stack["flower"]
    login = f"{flower['user']}:{flower['password']}"
    assert get(f"{flower['url']}/api/workers")[0] == 401
    assert get(f"{flower['url']}/api/workers", login)[0] == 200
    assert login in program.output().replace("user ", "").replace(", password ", ":")
    commands = [" ".join(process.cmdline()) for process in home.family()]
    assert not any(flower["password"] in command for command in commands)

    family = home.family()
    program.send(signal.SIGTERM)
    assert program.wait(timeout_s=90) == 0, program.output()
    stopped = re.findall(r"^embedmill \| stopping (\w+)$", program.output(), re.MULTILINE)
    assert stopped == ["flower", "web", "worker", "qdrant", "redis"]
    assert none_left(family)
    assert not (home.data_dir / "stack.json").exists()
    assert not (home.data_dir / "processes.json").exists()


def test_a_dead_worker_ends_the_stack_and_is_named(home: Home) -> None:
    program = home.ready("--concurrency", "1", "--without", "web,flower")
    family = home.family()
    pid = home.stack()["worker"]["pid"]
    os.kill(pid, signal.SIGKILL)
    assert program.wait(timeout_s=60) == 1
    assert f"Error: worker (pid {pid}) ended by itself: SIGKILL" in program.output()
    assert none_left(family)
    assert not (home.data_dir / "stack.json").exists()


def test_a_killed_launcher_leaves_no_process_and_no_gap_in_the_data(home: Home) -> None:
    program = home.ready("--concurrency", "1", "--without", "flower")
    embed_one(home.stack()["web"]["url"])
    family = home.family()
    program.kill()

    home.ready(*STORES_ONLY)
    assert "an interrupted run" in home.programs[-1].output()
    assert none_left(family)
    qdrant_url = home.stack()["qdrant"]["url"]
    count = get(f"{qdrant_url}/collections/documents/points/count", body={"exact": True})
    assert count[1]["result"]["count"] == 1


def test_a_second_stack_on_the_same_data_is_refused(home: Home) -> None:
    first = home.ready(*STORES_ONLY)
    second = home.up(*STORES_ONLY)
    assert second.wait() == 1
    assert second.output().startswith("Error: another stack runs on ")
    assert second.output().count("\n") == 1
    assert first.running()
    assert get(f"{home.stack()['qdrant']['url']}/readyz")[0] == 200


def test_a_taken_port_is_one_sentence(home: Home) -> None:
    home.ready(*STORES_ONLY)
    taken = home.stack()["qdrant"]["url"].rpartition(":")[2]
    other = Home(home.root / "other")
    other.root.mkdir()
    program = other.up("--port", taken)
    assert program.wait() == 1
    assert program.output().startswith(f"Error: port {taken} is taken by another program")
    assert not other.data_dir.exists()


def test_a_redis_that_is_given_is_not_started(home: Home, broker: RedisServer) -> None:
    env = {**OWN_SERVERS, "EMBED_BROKER_URL": broker.url}
    home.ready("--without", "worker,qdrant,flower", env=env)
    stack = home.stack()
    assert stack["redis"] == {"url": broker.url}
    assert list(stack) == ["redis", "web"]
    assert broker.client.ping()


def test_a_given_redis_that_is_not_there_is_named(home: Home) -> None:
    env = {**OWN_SERVERS, "EMBED_BROKER_URL": "redis://127.0.0.1:1/0"}
    program = home.up("--without", "worker,qdrant,flower", env=env)
    assert program.wait(timeout_s=60) == 1
    assert "Error: redis was not ready after 5 s" in program.output()
    assert "EMBED_BROKER_URL=redis://127.0.0.1:1/0, or unset" in program.output()


def test_given_servers_are_looked_at_before_anything_is_started(home: Home) -> None:
    env = {**OWN_SERVERS, "EMBED_QDRANT_URL": "http://127.0.0.1:1"}
    program = home.up("--without", "web,flower", env=env)
    assert program.wait(timeout_s=60) == 1
    assert "unset EMBED_QDRANT_URL and `embedmill up` brings one" in program.output()
    assert "starting redis" not in program.output()


def test_a_model_that_is_not_there_is_one_sentence(home: Home) -> None:
    program = home.up(env={**OWN_SERVERS, "EMBED_MODEL": "/no/such/model"})
    assert program.wait(timeout_s=60) == 1
    assert program.output() == (
        "Error: EMBED_MODEL=/no/such/model is not a folder; name one, or a model\n"
    )


def test_an_interrupted_start_is_status_130(home: Home) -> None:
    program = home.up("--without", "web,flower")
    program.wait_until(lambda: "starting qdrant" in program.output(), "it is on its way")
    program.send(signal.SIGINT)
    assert program.wait(timeout_s=60) == 130, program.output()


def test_data_is_kept_between_runs(home: Home) -> None:
    for run in ("first", "second"):
        program = home.ready(*STORES_ONLY)
        with redis.Redis.from_url(home.stack()["redis"]["url"]) as client:
            assert client.get("run") == (None if run == "first" else b"first")
            client.set("run", run)
        program.send(signal.SIGINT)
        assert program.wait() == 0


def test_the_stack_as_a_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in OWN_SERVERS.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    options = Options(
        data_dir=tmp_path / "data", port=0, without=frozenset({"worker", "web", "flower"})
    )
    try:
        with Stack(options, output=Output(sys.stdout)) as stack:
            assert get(f"{stack.qdrant_url}/readyz")[0] == 200
            pids = [entry["pid"] for entry in stack.entries.values()]
    finally:
        get_settings.cache_clear()
    assert not any(map(psutil.pid_exists, pids))
    assert "redis     | " in capsys.readouterr().out


def test_the_qdrant_server_runs_alone(home: Home) -> None:
    port = free_port()
    command = [EMBEDMILL, "qdrant", "--data-dir", str(home.data_dir), "--port", str(port)]
    program = Program(command, log=home.root / "qdrant.log", cwd=home.root)
    home.programs.append(program)
    program.wait_until(lambda: answers(f"http://127.0.0.1:{port}/readyz"), "it is ready")
    assert program.stop() == 0


def answers(url: str) -> bool:
    try:
        return get(url)[0] == 200
    except OSError:
        return False
