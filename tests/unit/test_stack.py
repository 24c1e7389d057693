"""What the local stack would run and write, without running it."""

import io
import json
import re
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from compose import redis_server
from compose.demo import conclude, name_folder
from compose.errors import StackError
from compose.following import Tally
from compose.output import Output, Reader
from compose.ports import HOST, choose, is_free
from compose.process import Identity
from compose.record import PROCESSES, STACK, Run, read_run, remove_run, write_run, write_stack
from compose.service import NAMES, Service
from compose.services import Options, Plan, list_exports, list_services, make_plan
from compose.stack import describe
from compose.up import greet
from tasks.settings import MIB, Settings

VARIABLES = ("EMBED_BROKER_URL", "EMBED_QDRANT_URL", "EMBED_MODEL")


@pytest.fixture(autouse=True)
def _no_settings_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@contextmanager
def held_port() -> Iterator[int]:
    """A port with somebody on it."""
    with socket.create_server((HOST, 0)) as server:
        yield int(server.getsockname()[1])


DEFAULT = Options(port=0)


def plan(data_dir: Path, options: Options = DEFAULT, settings: Settings | None = None) -> Plan:
    return make_plan(options, settings or Settings(), data_dir)


def services(
    data_dir: Path, options: Options = DEFAULT, settings: Settings | None = None
) -> list[Service]:
    return list_services(plan(data_dir, options, settings))


def service(name: str, data_dir: Path) -> Service:
    return next(found for found in services(data_dir) if found.name == name)


def without(*left_out: str) -> Options:
    return Options(port=0, without=frozenset(left_out))


def names(found: list[Service]) -> list[str]:
    return [service.name for service in found]


def test_everything_starts_in_the_order_of_its_needs(tmp_path: Path) -> None:
    assert names(services(tmp_path)) == [*NAMES, "the pipeline"]


@pytest.mark.parametrize(
    ("left_out", "left"),
    [
        ({"flower"}, ["redis", "qdrant", "worker", "web", "the pipeline"]),
        ({"worker"}, ["redis", "qdrant", "web", "flower"]),
        ({"worker", "web", "flower"}, ["redis", "qdrant"]),
        ({"worker", "web", "flower", "redis"}, ["qdrant"]),
        ({"worker", "web", "flower", "qdrant"}, ["redis"]),
    ],
)
def test_names_can_be_left_out(tmp_path: Path, left_out: set[str], left: list[str]) -> None:
    assert names(services(tmp_path, without(*left_out))) == left


def test_a_server_that_runs_elsewhere_is_probed_when_it_is_needed(tmp_path: Path) -> None:
    given = Settings(broker_url="redis://there:1/2", qdrant_url="http://there:2")
    found = {service.name: service for service in services(tmp_path, settings=given)}
    assert not found["redis"].command
    assert not found["qdrant"].command
    assert describe(found["redis"], 0) == {"url": "redis://there:1/2"}
    assert found["worker"].environment["EMBED_BROKER_URL"] == "redis://there:1/2"
    assert found["worker"].environment["EMBED_QDRANT_URL"] == "http://there:2"
    alone = services(tmp_path, without("worker", "web"), given)
    assert names(alone) == ["redis", "flower"]


def test_commands_are_ordinary_ones(tmp_path: Path) -> None:
    options = Options(port=0, concurrency=3, web_workers=2)
    commands = {found.name: " ".join(found.command) for found in services(tmp_path, options)}
    assert "-m celery -A workers worker -c 3" in commands["worker"]
    assert f"-m uvicorn webapp.main:app --host {HOST} --port" in commands["web"]
    assert "--workers 2" in commands["web"]
    assert f"-m celery -A tasks flower --address={HOST} --port=" in commands["flower"]
    assert f"-m compose.qdrant --data-dir {tmp_path}/qdrant --port" in commands["qdrant"]


def test_the_worker_takes_its_concurrency_from_the_settings(tmp_path: Path) -> None:
    assert "-c" not in service("worker", tmp_path).command


def test_an_apple_gpu_is_used_without_a_fork(tmp_path: Path) -> None:
    (worker,) = (
        found
        for found in services(tmp_path, settings=Settings(device="mps"))
        if found.name == "worker"
    )
    assert worker.command[-2:] == ("-P", "solo")


def test_flowers_password_is_new_and_not_on_its_command_line(tmp_path: Path) -> None:
    flower, again = service("flower", tmp_path), service("flower", tmp_path)
    password = flower.details["password"]
    assert len(password) >= 16
    assert password != again.details["password"]
    assert flower.environment["FLOWER_BASIC_AUTH"] == f"embedmill:{password}"
    assert password not in " ".join(flower.command)


def test_children_find_each_other_by_environment(tmp_path: Path) -> None:
    made = plan(tmp_path)
    assert made.environment["EMBED_BROKER_URL"] == made.redis_url
    assert made.environment["EMBED_QDRANT_URL"] == made.qdrant_url
    assert len({made.redis_url, made.qdrant_url, made.web_url, made.flower_url}) == 4


def test_a_models_folder_is_found_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my-model").mkdir()
    monkeypatch.chdir(tmp_path)
    made = plan(tmp_path, settings=Settings(model="my-model"))
    assert made.environment["EMBED_MODEL"] == str(tmp_path / "my-model")
    assert plan(tmp_path, settings=Settings(model="fake")).environment["EMBED_MODEL"] == "fake"


def test_redis_keeps_what_it_acknowledges_and_evicts_nothing(tmp_path: Path) -> None:
    command = redis_server.server_command(Path("/a/server"), tmp_path, 1234, Settings())
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--appendfsync"] == "always"
    assert options["--maxmemory-policy"] == "noeviction"
    assert options["--bind"] == HOST
    assert int(options["--maxmemory"]) == 1024 * MIB


def test_redis_has_room_beyond_the_limit_of_texts(tmp_path: Path) -> None:
    small = Settings(queue_bytes=2 * MIB)
    large = Settings(queue_bytes=1024 * MIB)
    assert f"{512 * MIB}" in redis_server.server_command(Path("s"), tmp_path, 1, small)
    assert f"{4096 * MIB}" in redis_server.server_command(Path("s"), tmp_path, 1, large)


def test_a_server_on_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for program in ("valkey-server", "redis-server"):
        (tmp_path / program).touch(mode=0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert redis_server.find_server() == tmp_path / program


def test_the_wheels_server_is_the_last_resort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert redis_server.find_server().name == "valkey-server"
    monkeypatch.setattr(redis_server, "WHEEL", "no_such_wheel")
    with pytest.raises(StackError, match="no Redis server"):
        redis_server.find_server()


def test_ports_differ_and_a_taken_one_is_passed_over() -> None:
    with held_port() as taken:
        assert not is_free(taken)
        chosen = choose((0, taken, 0))
    assert len({taken, *chosen}) == 4


def test_a_taken_web_port_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with held_port() as taken, pytest.raises(StackError, match=f"port {taken} is taken.*--port"):
        plan(tmp_path, Options(port=taken))


def test_a_taken_web_port_does_not_matter_without_the_web(tmp_path: Path) -> None:
    with held_port() as taken:
        plan(tmp_path, Options(port=taken, without=frozenset({"web"})))


def test_stack_json_is_for_its_owner_alone(tmp_path: Path) -> None:
    write_stack(tmp_path, {"web": {"url": "http://127.0.0.1:1", "pid": 2}})
    path = tmp_path / STACK
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text()) == {"web": {"url": "http://127.0.0.1:1", "pid": 2}}
    assert [file.name for file in tmp_path.iterdir()] == [STACK]


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    run = Run("a-mark", (Identity("redis", 12, 345.25, 30.0), Identity("web", 13, 346.5, 15.0)))
    write_run(tmp_path, run)
    assert read_run(tmp_path) == run
    remove_run(tmp_path)
    assert read_run(tmp_path) is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"mark": "m", "processes": [{"pid": 1}]}'])
def test_a_damaged_record_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / PROCESSES).write_text(content)
    with pytest.raises(StackError, match=f"{PROCESSES} cannot be read"):
        read_run(tmp_path)


def test_the_greeting_says_where_everything_is() -> None:
    text = greet(
        {
            "web": {"url": "http://127.0.0.1:8080", "pid": 1},
            "worker": {"pid": 2},
            "flower": {"url": "http://127.0.0.1:5555", "user": "u", "password": "secret"},
        },
        {},
    )
    assert "http://127.0.0.1:8080/docs" in text
    assert "http://127.0.0.1:5555" in text
    assert "secret" in text
    assert "Ctrl-C" in text
    assert "export" not in text


def test_the_greeting_shows_no_password_of_a_given_server() -> None:
    assert "hidden" not in greet({"redis": {"url": "redis://:hidden@there:1/0"}}, {})


def test_another_terminal_is_told_of_unusual_addresses(tmp_path: Path) -> None:
    made = plan(tmp_path, settings=Settings(model="fake", qdrant_url="http://there:2"))
    exports = list_exports(made)
    assert exports == {"EMBED_BROKER_URL": made.redis_url, "EMBED_MODEL": "fake"}
    said = f"\n  export EMBED_BROKER_URL={made.redis_url} EMBED_MODEL=fake\n"
    assert said in greet({"redis": {"url": made.redis_url}}, exports)
    given = Settings(broker_url="redis://there:1/2", qdrant_url="http://there:2", model="fake")
    assert not list_exports(plan(tmp_path, settings=given))


def test_advice_about_a_given_server_names_its_variable_and_no_password(tmp_path: Path) -> None:
    given = Settings(broker_url="redis://:hidden@there:1/2")
    found = {service.name: service for service in services(tmp_path, without("qdrant"), given)}
    assert found["redis"].advice == (
        "start the one of EMBED_BROKER_URL=redis://***@there:1/2, "
        "or unset EMBED_BROKER_URL and `embedmill up` brings one"
    )
    assert "take qdrant out of --without" in found["qdrant"].advice


def test_the_worker_leaves_celerys_usual_name_to_others(tmp_path: Path) -> None:
    command = service("worker", tmp_path).command
    assert command[command.index("-n") + 1] == "embedmill@%h"


@pytest.mark.parametrize("printed", ["embedmill: no weights", "[now: CRITICAL/Main] no weights"])
def test_of_last_lines_those_with_the_reason_are_shown(printed: str) -> None:
    def last_lines(*lines: str) -> str:
        pipe = io.BytesIO("\n".join(lines).encode())
        reader = Reader("worker", pipe, Output(io.StringIO()))
        reader.run()
        return reader.last_lines()

    assert last_lines("starting", printed, "bye") == f"    {printed}"
    assert last_lines("starting", "bye") == "    starting\n    bye"


def test_each_model_has_a_demo_folder_of_its_own() -> None:
    assert name_folder(Settings()) == "demo"
    assert name_folder(Settings(model="fake")) == "demo-fake"
    assert name_folder(Settings(model="some/model")) == "demo-some-model"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "EMBED_DATA_DIR='/some where'"),
        ({"model": "fake"}, "EMBED_DATA_DIR='/some where' EMBED_MODEL=fake"),
    ],
)
def test_the_demo_says_how_to_go_on_with_its_data(given: dict[str, Any], words: str) -> None:
    last = conclude(Tally(), 0, Path("/some where"), Settings(**given)).splitlines()[-1]
    assert re.fullmatch(rf"  {re.escape(words)} \S*embedmill up", last)


def test_the_file_of_api_keys_is_found_from_another_folder(tmp_path: Path) -> None:
    given = Settings(api_keys_file=Path("keys.jsonl"))
    environment = plan(tmp_path, settings=given).environment
    assert environment["EMBED_API_KEYS_FILE"] == str(Path.cwd() / "keys.jsonl")
