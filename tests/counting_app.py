"""A Celery app for tests of delivery: its tasks write into Redis when they run.

`celery -A tests.counting_app worker` gets its messages as Embedmill's workers do.
"""

import os
import time
from typing import Any

import redis
from celery import Celery
from celery.signals import worker_process_init
from kombu import Exchange, Queue
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from tests.counting import GATE, QUEUES, RUNS, STARTED
from workers import delivery

URL = os.environ["EMBED_BROKER_URL"]
worker_process_init.disconnect(dispatch_uid="embedmill.load")  # no model here

app = Celery("counting", broker=URL, set_as_current=False)
app.conf.update(
    task_queues=[Queue(name, Exchange(name), routing_key=name) for name in QUEUES],
    task_default_queue=QUEUES[0],
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=int(os.environ.get("COUNTING_PREFETCH", "8")),
    worker_cancel_long_running_tasks_on_connection_loss=False,
    broker_connection_retry_on_startup=True,
    broker_transport_options={
        "visibility_timeout": float(os.environ.get("COUNTING_LEASE_S", "2")),
        "unacked_restore_interval": float(os.environ.get("COUNTING_SWEEP_S", "0.5")),
        "unacked_restore_throttle": 1,
        "priority_steps": [0],
        "socket_connect_timeout": 5,
        "socket_timeout": 30,
    },
)
delivery.install(app)


def connect() -> redis.Redis:
    """A client of the app's Redis that waits for it when it is away."""
    patience = Retry(ConstantBackoff(0.1), 300)
    client: redis.Redis = redis.Redis.from_url(URL, retry=patience)
    return client


@app.task(name="counting.count")
def count(number: int, **_: Any) -> None:
    """Say that it runs."""
    with connect() as client:
        client.hset(STARTED, str(number), time.time())
        client.hincrby(RUNS, str(number), 1)


@app.task(name="counting.hold")
def hold(number: int) -> None:
    """Say that it runs, then wait until the test gives it one item of the gate."""
    count(number)
    with connect() as client:
        client.blpop([GATE], timeout=60)


@app.task(name="counting.refuse", bind=True)
def refuse(self: Any, number: int) -> None:
    """Go back to the queue the first time."""
    from celery.exceptions import Reject

    count(number)
    if not self.request.delivery_info.get("redelivered"):
        raise Reject("not now", requeue=True)
