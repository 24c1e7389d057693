"""The backup of Redis that docs/operations.md describes can be restored."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import wait_until
from tests.redis_server import RedisServer, local_redis


@pytest.fixture
def source(tmp_path: Path) -> Iterator[RedisServer]:
    folder = tmp_path / "source"
    folder.mkdir()
    with local_redis(folder) as server:
        yield server


def test_redis_log_is_copied_while_it_runs(source: RedisServer, tmp_path: Path) -> None:
    source.client.rpush("embed", *range(1000))
    source.client.config_set("auto-aof-rewrite-percentage", 0)
    wait_until(
        lambda: not source.client.info("persistence")["aof_rewrite_in_progress"], "no rewrite runs"
    )
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "source/appendonlydir", copy / "appendonlydir")
    source.client.delete("embed")  # what comes later is not in it
    with local_redis(copy) as restored:
        assert restored.client.llen("embed") == 1000
