"""Messages on a real Redis: what is accepted lies there as a stock producer would have put it."""

from base64 import b64decode
from typing import Any

import orjson
from celery import Celery
from kombu import Connection, Queue

from tasks import app
from tasks.client import submit
from tasks.messages import text_id
from tests.redis_server import RedisServer


def test_stock_kombu_reads_what_is_enqueued(broker: RedisServer) -> None:
    job_id = submit([f"t{i}" for i in range(100)]).id
    with Connection(broker.url, transport_options={"priority_steps": [0]}) as connection:
        queue = connection.SimpleQueue("embed")
        messages = [queue.get(timeout=5) for _ in range(2)]
        for message in messages:
            message.ack()
        queue.close()
    (first, second) = [message.payload[0][0] for message in messages]
    assert (len(first), len(second)) == (64, 36)
    assert first[0] == {"id": text_id("t0"), "text": "t0"}
    headers: list[dict[str, Any]] = [message.headers for message in messages]
    assert headers[1]["embedmill"] == {"v": 1, "job": job_id, "start": 64, "count": 36}
    assert headers[0]["argsrepr"] == "(64 documents)"


def take_message(broker: RedisServer) -> dict[str, Any]:
    """The next message of the queue, with its body decoded."""
    packed = broker.client.lpop("embed")
    assert isinstance(packed, bytes)
    message: dict[str, Any] = orjson.loads(packed)
    message["body"] = orjson.loads(b64decode(message["body"]))
    return message


def test_a_stock_producer_s_message_looks_the_same(broker: RedisServer) -> None:
    job_id = submit("hello").id
    ours = take_message(broker)
    stock = Celery(broker=broker.url)
    stock.conf.update(
        task_queues=[Queue("embed")], broker_transport_options={"priority_steps": [0]}
    )
    stock.send_task(
        "tasks.embed",
        ([{"id": text_id("hello"), "text": "hello"}],),
        {"collection": "documents", "on_long": "chunk"},
        task_id=job_id,
        queue="embed",
        headers={"embedmill": {"v": 1, "job": job_id, "start": 0, "count": 1}},
        ignore_result=True,
    )
    stock.close()
    theirs = take_message(broker)
    for message in (ours, theirs):
        for name in ("origin", "argsrepr", "kwargsrepr"):  # the texts are not for logs
            assert message["headers"].pop(name)
        assert message["properties"].pop("delivery_tag")
        message["properties"].pop("reply_to")  # nobody waits for a result of ours
    assert ours == theirs


def test_a_queue_gets_its_own_messages_only(broker: RedisServer) -> None:
    with app.connection_for_write() as connection, connection.Producer() as producer:
        queues = list(app.amqp.queues.values())
        for queue in queues:
            producer.publish(
                queue.name, exchange=queue.exchange, routing_key=queue.routing_key, declare=queues
            )
    assert {queue.name: broker.client.llen(queue.name) for queue in queues} == {
        "embed": 1,
        "query": 1,
    }
