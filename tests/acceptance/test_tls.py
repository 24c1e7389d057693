"""Credentials and TLS in the URLs of Redis and Qdrant: all processes get in, and none says how."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trustme

from tests.processes import wait_until
from tests.qdrant_server import LocalQdrant
from tests.redis_server import RedisServer, local_redis
from tests.tls_proxy import TlsProxy, tls_before
from tests.web_server import local_web
from tests.worker import Worker

pytestmark = pytest.mark.slow

USER, PASSWORD, KEY = "embedmill", "s3cret-of-redis", "s3cret-of-qdrant"


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that lets in nobody but our user."""
    with local_redis(tmp_path) as server:
        server.client.acl_setuser(
            USER,
            enabled=True,
            passwords=[f"+{PASSWORD}"],
            keys=["*"],
            channels=["*"],
            commands=["+@all"],
        )
        server.client.acl_setuser("default", enabled=False)
        server.client.connection_pool.disconnect()
        yield server


@pytest.fixture
def redis_tls(authority: trustme.CA, locked: RedisServer, tmp_path: Path) -> Iterator[TlsProxy]:
    with tls_before(authority, locked.url, tmp_path) as proxy:
        yield proxy


@pytest.fixture
def qdrant_tls(authority: trustme.CA, qdrant: LocalQdrant, tmp_path: Path) -> Iterator[TlsProxy]:
    with tls_before(authority, qdrant.url, tmp_path) as proxy:
        yield proxy


@pytest.fixture
def env(
    redis_tls: TlsProxy, qdrant_tls: TlsProxy, authority: trustme.CA, tmp_path: Path
) -> dict[str, str]:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    ca = f"ssl_ca_certs={tmp_path}/ca.pem"
    return {
        "EMBED_BROKER_URL": f"rediss://{USER}:{PASSWORD}@127.0.0.1:{redis_tls.port}/0?{ca}",
        "EMBED_QDRANT_URL": f"https://:{KEY}@localhost:{qdrant_tls.port}?{ca}",
        "EMBED_MODEL": "fake",
        "EMBED_DATA_DIR": str(tmp_path / "none"),
    }


def run_doctor(env: dict[str, str]) -> str:
    program = str(Path(sys.executable).parent / "embedmill")
    argv = [program, "doctor", "--url", "http://127.0.0.1:1"]
    done = subprocess.run(
        argv, env={**os.environ, **env}, capture_output=True, text=True, check=False, timeout=60
    )
    return done.stdout + done.stderr


def assert_discreet(*outputs: str) -> None:
    for output in outputs:
        assert PASSWORD not in output
        assert KEY not in output


def test_all_get_in_by_url_and_nobody_repeats_it(
    env: dict[str, str], redis_tls: TlsProxy, qdrant_tls: TlsProxy, tmp_path: Path
) -> None:
    worker = Worker(tmp_path, env, concurrency=1, name="tls", app="workers", options=())
    try:
        with local_web(tmp_path, env) as web, httpx.Client(base_url=web.url) as client:
            ready = "/readyz"
            worker.program.wait_until(lambda: client.get(ready).status_code == 200, "it is warm")
            accepted = client.post("/embed", json={"text": "kept from others"}).raise_for_status()
            place = accepted.headers["location"]
            wait_until(lambda: client.get(place).json()["state"] == "done", "it is embedded")
            assert client.get(place).json()["done"] == 1
            found = client.post("/search", json={"text": "kept from others", "limit": 1})
            assert found.json()["hits"][0]["text"] == "kept from others"
            assert f"api-key: {KEY}".encode() in qdrant_tls.said()
            doctor = run_doctor(env)
            assert "127.0.0.1:" in doctor
            redis_tls.program.stop()
            qdrant_tls.program.stop()
            away = client.get("/queue")
            assert away.status_code == 503
            assert_discreet(away.text, client.get(ready).text, doctor, run_doctor(env))
    finally:
        worker.program.stop()
        worker.client.close()
    assert_discreet(worker.program.output(), web.program.output())


def test_a_server_of_another_authority_is_not_trusted(env: dict[str, str], tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))  # not the one that has signed
    doctor = run_doctor(env)
    assert doctor.count("CERTIFICATE_VERIFY_FAILED") >= 2
    assert_discreet(doctor)
