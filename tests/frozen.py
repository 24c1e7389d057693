"""What a version leaves in Redis, kept in tests/data for the versions after it.

`python -m tests.frozen FILE` writes what this version enqueues: two jobs, one of them a task whose
result somebody waits for, and a query. It needs the Redis of EMBED_BROKER_URL, empty.
"""

import base64
import json
import re
import sys
from pathlib import Path
from typing import Any

import redis

from tasks.queries import ASKED

FOLDER = Path(__file__).parent / "data"
FAR_S = 4102444800
"""In 2100: a query that is frozen still has somebody waiting."""
DOCUMENTS: list[dict[str, Any]] = [
    {"id": "frozen-1", "text": "a text that waits in the queue", "metadata": {"page": 7}},
    {"id": "frozen-2", "text": "기다리는 글"},
]
DELAYED = {"id": "frozen-3", "text": "one that was sent from Python"}
QUERY = "a query from before"


def freeze() -> dict[str, Any]:
    """The keys of Redis by their type, after what this version enqueues. Ids of jobs, too."""
    from tasks import app, embed
    from tasks.admission import redis_client
    from tasks.client import submit
    from tasks.ledger import run
    from tasks.queries import ask, cut_query, new_box, pack
    from tasks.settings import get_settings

    jobs = [submit(DOCUMENTS, collection="frozen").id]
    jobs.append(embed.delay([DELAYED], collection="frozen").id)
    box = new_box()
    questions = cut_query([QUERY], box)
    messages = [pack(app, question) for question in questions]
    run(redis_client(), ask(questions, messages, get_settings()))
    client: Any = redis_client()
    keys = {key.decode(): _read(client, key) for key in sorted(client.scan_iter("*"))}
    return {"jobs": jobs, "box": box, "keys": keys}


def thaw(client: redis.Redis, path: Path) -> dict[str, Any]:
    """Put it into an empty Redis, as an upgrade finds it."""
    frozen: dict[str, Any] = json.loads(path.read_text())
    for key, (kind, value) in frozen["keys"].items():
        if kind == "string":
            client.set(key, _decode(value))
        elif kind == "list":
            client.rpush(key, *map(_decode, value))
        elif kind == "hash":
            client.hset(key, mapping={name: _decode(own) for name, own in value.items()})
        else:
            client.zadd(key, value)
    return frozen


def _read(client: Any, key: bytes) -> tuple[str, Any]:
    kind = client.type(key).decode()
    if kind == "string":
        return kind, _encode(client.get(key))
    if kind == "list":
        return kind, [_encode(row) for row in client.lrange(key, 0, -1)]
    if kind == "hash":
        return kind, {name.decode(): _encode(own) for name, own in client.hgetall(key).items()}
    assert kind == "zset", (key, kind)
    rows = client.zrange(key, 0, -1, withscores=True)
    scores = {member.decode(): score for member, score in rows}
    return kind, dict.fromkeys(scores, FAR_S) if key.decode() == ASKED else scores


def _encode(value: Any) -> str:
    # what names the machine that froze it
    clean = re.sub(rb'"origin": ?"[^"]*"', b'"origin":"gen1@embedmill"', value)
    return base64.b64encode(clean).decode()


def _decode(value: str) -> bytes:
    return base64.b64decode(value)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(freeze(), indent=1) + "\n")
