"""compose.yaml's commands and health checks, run as plain processes.

The services' names become this machine's address, the ports free ones, and the image of Qdrant its
local server; all else is as it stands in the file.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import httpx
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from compose.redis_server import find_server
from tests.compose_file import ROOT, SECRETS, read_services
from tests.processes import Program, free_port, wait_until
from tests.qdrant_server import local_qdrant
from webapp.keyring import Key, Scope, digest, make_secret, write_keys

SERVICES = read_services()
KEY = make_secret()
USUAL = {"redis": 6379, "qdrant": 6333, "web": 8080, "flower": 5555}


@dataclass(frozen=True)
class Containers:
    """Where they are, and how to run their parts here."""

    ports: Mapping[str, int]
    folder: Path
    programs: dict[str, Program] = field(default_factory=dict)

    def words(self, name: str, part: list[str]) -> list[str]:
        """A command as this machine runs it."""
        changed = [self._here(name, word) for word in part]
        return [sys.executable, *changed[1:]] if changed[0] == "python" else changed

    def environment(self, name: str) -> dict[str, str]:
        values = SERVICES[name].get("environment", {})
        for service, port in USUAL.items():
            here = f"127.0.0.1:{self.ports[service]}"
            values = {
                key: re.sub(rf"(?<=[@/]){service}:{port}\b", here, value)
                for key, value in values.items()
            }
        path = f"{self.folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        values = {key: value.replace("/keys/", f"{self.folder}/") for key, value in values.items()}
        return {**os.environ, **values, "EMBED_MODEL": "fake", "PATH": path}

    def start(self, name: str) -> Program:
        self.programs[name] = Program(
            self.words(name, SERVICES[name]["command"]),
            log=self.folder / f"{name}.log",
            env=self.environment(name),
        )
        return self.programs[name]

    def connect(self, password: str | None = SECRETS["REDIS_PASSWORD"]) -> redis.Redis:
        return redis.Redis(
            port=self.ports["redis"],
            password=password,
            decode_responses=True,
            retry=Retry(NoBackoff(), 0),
        )

    def ask(self) -> httpx.Client:
        """A client of the web, with a key."""
        headers = {"Authorization": f"Bearer {KEY}"}
        return httpx.Client(base_url=f"http://127.0.0.1:{self.ports['web']}", headers=headers)

    def is_healthy(self, name: str) -> bool:
        """What its health check says."""
        kind, *words = SERVICES[name]["healthcheck"]["test"]
        assert kind == "CMD"
        done = subprocess.run(
            self.words(name, words), env=self.environment(name), capture_output=True, check=False
        )
        return done.returncode == 0

    def _here(self, name: str, word: str) -> str:
        word = word.replace("--dir /data", f"--dir {self.folder} --bind 127.0.0.1")
        word = word.replace("0.0.0.0", "127.0.0.1")
        return word.replace(str(USUAL.get(name, "-")), str(self.ports.get(name, "-")))


@pytest.fixture(scope="module")
def containers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    folder = tmp_path_factory.mktemp("containers")
    (folder / "valkey-server").symlink_to(find_server())
    now = datetime.now(UTC)
    admin = Key(name="me", sha256=digest(KEY), scopes=frozenset({Scope.ADMIN}), created_at=now)
    write_keys(folder / "keys.jsonl", [admin])
    made = Containers({name: free_port() for name in USUAL}, folder)
    with ExitStack() as stack:
        assert [name for name in SERVICES if made.is_healthy(name)] == []  # nothing runs yet
        stack.enter_context(local_qdrant(folder / "qdrant", made.ports["qdrant"]))
        for name in ("redis", "worker", "web", "flower"):
            program = made.start(name)
            stack.callback(program.stop)
            program.wait_until(partial(made.is_healthy, name), f"{name} is healthy")
        yield made


def test_every_service_becomes_healthy_and_together_they_embed(containers: Containers) -> None:
    assert [name for name in SERVICES if not containers.is_healthy(name)] == []
    with containers.ask() as web:
        job = web.post("/embed", json={"text": "hello world"}).headers["location"]
        wait_until(lambda: web.get(job).json()["state"] == "done", "the text is embedded")
    store = f"http://127.0.0.1:{containers.ports['qdrant']}/collections/documents"
    assert httpx.get(store).json()["result"]["points_count"] == 1


def test_redis_wants_its_password_and_writes_at_once(containers: Containers) -> None:
    with containers.connect(password=None) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
    with containers.connect() as client:
        assert client.config_get("appendfsync") == {"appendfsync": "always"}


def test_flower_wants_its_password(containers: Containers) -> None:
    url = f"http://127.0.0.1:{containers.ports['flower']}/workers"
    user, _, password = SECRETS["FLOWER_BASIC_AUTH"].partition(":")
    assert httpx.get(url).status_code == 401
    assert httpx.get(url, auth=(user, password)).status_code == 200


def test_docker_starts_redis_itself_and_no_shell_around_it(containers: Containers) -> None:
    """Signals reach what Docker starts, and no further."""
    with containers.connect() as client:
        assert client.info("server")["process_id"] == containers.programs["redis"].pid


def test_the_metrics_that_the_operations_page_names_exist(containers: Containers) -> None:
    page = (ROOT / "docs/operations.md").read_text()
    with containers.ask() as web:
        served = web.get("/metrics").text
    named = {name for name in re.findall(r"embedmill_\w+", page) if "_gpu_" not in name}
    assert named
    assert named <= set(re.findall(r"^embedmill_\w+", served, re.MULTILINE))
