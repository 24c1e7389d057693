"""The first version: FastAPI, an `asyncio.Queue` a process, one encode and one upsert a text.

`uvicorn tests.bench.baselines.asyncio_queue:app --workers N`, one torch thread each. Of
the settings that were tried (1 to 10 coroutines, 1 to 4 processes, default threads) its fastest.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI
from pydantic import BaseModel
from qdrant_client import AsyncQdrantClient, models

from tests.bench.baselines.model import QDRANT_URL, load_model, point, tell_ready

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

COROUTINES = 2
"""One stores while the other one's text is in the model."""
QUEUE_TEXTS = 10_000

queue: asyncio.Queue[tuple[str, str]] = asyncio.Queue(QUEUE_TEXTS)


class Texts(BaseModel):
    collection: str
    texts: list[str]


class Accepted(BaseModel):
    accepted: int


async def consume(model: "SentenceTransformer", qdrant: AsyncQdrantClient) -> None:
    """Text by text, for ever."""
    while True:
        collection, text = await queue.get()
        try:
            vector = await asyncio.to_thread(model.encode, text, show_progress_bar=False)
            stored = models.PointStruct.model_validate(point(text, vector.tolist()))
            await qdrant.upsert(collection, points=[stored], wait=True)
        except Exception:
            logger.exception("a text was lost")
        finally:
            queue.task_done()


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    model = load_model()
    qdrant = AsyncQdrantClient(url=os.environ[QDRANT_URL], check_compatibility=False)
    consumers = [asyncio.create_task(consume(model, qdrant)) for _ in range(COROUTINES)]
    tell_ready()
    yield
    for consumer in consumers:
        consumer.cancel()
    await qdrant.close()


app = FastAPI(lifespan=lifespan)


@app.post("/embed", status_code=202)
async def embed(body: Texts) -> Accepted:
    """Returns when all are in this process' queue."""
    for text in body.texts:
        await queue.put((body.collection, text))
    return Accepted(accepted=len(body.texts))
