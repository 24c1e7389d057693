"""The local Qdrant server as a process: its lock, its port, its signals, its directory."""

import signal
import socket
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from qdrant_client import models

from tests.qdrant_server import REPOSITORY, START_TIMEOUT_S, command, local_qdrant

PLANE = models.VectorParams(size=2, distance=models.Distance.DOT)
POINT = models.PointStruct(id=1, vector=[1.0, 2.0], payload={"a": 1})


def start_in_vain(data_dir: Path, port: int = 0) -> str:
    """Start a server that must not start; the one sentence with which it ends."""
    ended = subprocess.run(
        command(data_dir, port),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=START_TIMEOUT_S,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    return ended.stderr


def test_a_second_server_on_the_directory_is_refused(tmp_path: Path) -> None:
    with local_qdrant(tmp_path) as server, server.connect() as client:
        assert "already using the data directory" in start_in_vain(tmp_path)
        assert client.get_collections().collections == []


def test_a_port_in_use_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"127.0.0.1:{port}" in start_in_vain(tmp_path, port)


def test_it_listens_on_loopback_and_on_the_port_it_is_given(tmp_path: Path) -> None:
    with local_qdrant(tmp_path) as server:
        port = urlsplit(server.url).port
        server.kill()
    with local_qdrant(tmp_path, port) as server:
        assert server.url == f"http://127.0.0.1:{port}"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 0)])
def test_it_closes_cleanly_and_keeps_what_it_has(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    with local_qdrant(tmp_path) as server, server.connect() as client:
        client.create_collection("a", PLANE, metadata={"model": "fake"})
        client.create_payload_index("a", "a", models.PayloadSchemaType.KEYWORD)
        client.upsert("a", [POINT])
        server.process.send_signal(number)
        assert server.process.wait(30) == status
    with local_qdrant(tmp_path) as server, server.connect() as client:
        info = client.get_collection("a")
        assert (info.points_count, info.config.metadata) == (1, {"model": "fake"})
        assert list(info.payload_schema) == ["a"]


def test_a_client_that_hangs_does_not_keep_it_from_closing(tmp_path: Path) -> None:
    with local_qdrant(tmp_path) as server, server.connect() as client:
        client.create_collection("a", PLANE)
        address = urlsplit(server.url)
        with socket.create_connection((address.hostname or "", address.port or 0)) as hanging:
            hanging.sendall(b"PUT /collections/a/points HTTP/1.1\r\nContent-Length: 9\r\n\r\n{")
            assert server.stop() == 0


def test_folders_of_half_made_collections_are_swept(tmp_path: Path) -> None:
    half_made = tmp_path / "collections" / ("0" * 32)
    (half_made / "shard").mkdir(parents=True)
    (half_made / "meta.tmp").write_text("{")
    foreign = tmp_path / "collections" / "notes"
    foreign.mkdir()
    with local_qdrant(tmp_path) as server, server.connect() as client:
        assert client.get_collections().collections == []
    assert not half_made.exists()
    assert foreign.exists()


def test_a_deleted_collection_leaves_nothing_behind(tmp_path: Path) -> None:
    with local_qdrant(tmp_path) as server, server.connect() as client:
        client.create_collection("a", PLANE)
        client.upsert("a", [POINT])
        client.delete_collection("a")
        assert list((tmp_path / "collections").iterdir()) == []


def test_a_damaged_collection_is_named_and_not_thrown_away(tmp_path: Path) -> None:
    damaged = tmp_path / "collections" / ("0" * 32)
    damaged.mkdir(parents=True)
    (damaged / "meta.json").write_text("{")
    assert str(damaged) in start_in_vain(tmp_path)
    assert damaged.exists()
