"""Celery with one text a task, the model loaded once a child.

`celery -A tests.bench.baselines.celery_texts worker -c N`: with OMP_NUM_THREADS=1 its best setting,
without it what a stock installation does.
"""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from celery import Celery
from celery.signals import worker_process_init

from tests.bench.baselines.model import BROKER_URL, QDRANT_URL, load_model, point, tell_ready

if TYPE_CHECKING:
    from qdrant_client import QdrantClient
    from sentence_transformers import SentenceTransformer

app = Celery("celery_texts", broker=os.environ[BROKER_URL], set_as_current=False)
app.conf.update(task_ignore_result=True, broker_connection_retry_on_startup=True)


@dataclass
class Child:
    """What a pool child holds."""

    model: "SentenceTransformer"
    qdrant: "QdrantClient"


_child: list[Child] = []


@worker_process_init.connect
def load(**_: object) -> None:
    from qdrant_client import QdrantClient

    qdrant = QdrantClient(url=os.environ[QDRANT_URL], check_compatibility=False)
    _child.append(Child(load_model(), qdrant))
    tell_ready()


@app.task(name="celery_texts.embed_text")
def embed_text(text: str, collection: str) -> None:
    """One text: one encode, one upsert."""
    from qdrant_client import models

    (child,) = _child
    vector = child.model.encode(text, show_progress_bar=False)
    stored = models.PointStruct.model_validate(point(text, vector.tolist()))
    child.qdrant.upsert(collection, points=[stored], wait=True)
