"""An endpoint that only reads our body and answers as ours does: the ceiling of FastAPI."""

from uuid import uuid4

from fastapi import FastAPI

from tasks.messages import text_id
from webapp.schemas import Accepted, EmbedIn

app = FastAPI()


@app.post("/embed", status_code=202)
async def embed(body: EmbedIn) -> Accepted:
    return Accepted(job_id=str(uuid4()), document_ids=[text_id(body.text)], accepted=1)
