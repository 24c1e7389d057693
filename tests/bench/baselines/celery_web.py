"""The web in front of `celery_texts`: each text of a request becomes a task."""

from fastapi import FastAPI
from pydantic import BaseModel

from tests.bench.baselines.celery_texts import embed_text

app = FastAPI()


class Texts(BaseModel):
    collection: str
    texts: list[str]


class Accepted(BaseModel):
    accepted: int


@app.post("/embed", status_code=202)
def embed(body: Texts) -> Accepted:
    """Not `async`: publishing blocks, so FastAPI runs it in a thread."""
    for text in body.texts:
        embed_text.delay(text, body.collection)
    return Accepted(accepted=len(body.texts))
