"""Our worker in pytest-celery's architecture, asked by an app that knows nothing of us."""

import pytest
from celery.result import AsyncResult
from pytest_celery import CeleryTestSetup

from tests.processes import wait_until

TIMEOUT_S = 90
MESSAGES = 40


def send(setup: CeleryTestSetup, *texts: str) -> AsyncResult[dict[str, int]]:
    result: AsyncResult[dict[str, int]]
    result = setup.app.send_task("tasks.embed", [list(texts)], queue="embed")
    return result


@pytest.mark.timeout(300)
def test_it_is_an_ordinary_worker(celery_setup: CeleryTestSetup) -> None:
    assert celery_setup.ready(control=True)
    assert celery_setup.worker is not None
    assert send(celery_setup, "a private text", "another").get(timeout=TIMEOUT_S)["done"] == 2
    celery_setup.worker.assert_log_exists("tasks.embed")
    assert "a private text" not in celery_setup.worker.logs()


@pytest.mark.timeout(300)
def test_what_it_held_when_it_was_killed_runs_again(celery_setup: CeleryTestSetup) -> None:
    assert celery_setup.worker is not None
    results = [send(celery_setup, f"text {number}") for number in range(MESSAGES)]
    wait_until(lambda: any(result.ready() for result in results), "some are done")
    celery_setup.worker.kill()
    assert not all(result.ready() for result in results)
    celery_setup.worker.restart()
    assert [result.get(timeout=TIMEOUT_S)["done"] for result in results] == [1] * MESSAGES
