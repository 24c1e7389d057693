"""Stored vectors are those of `SentenceTransformer.encode`, point by point."""

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient
from sentence_transformers import SentenceTransformer

from tasks.client import Job, submit
from tasks.settings import DEFAULT_MODEL, Settings
from tests.qdrant_server import LocalQdrant
from tests.redis_server import RedisServer
from tests.texts import varied_texts
from tests.worker import local_worker
from workers.weights import find_weights

TEXTS = varied_texts(500)
TIMEOUT_S = 400
Payloads = list[dict[str, Any]]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_stored_vectors_equal_those_of_sentence_transformers(
    broker: RedisServer, qdrant: LocalQdrant, stack_env: dict[str, str], tmp_path: Path
) -> None:
    # the usual collection of this session's store is another model's
    env = stack_env | {"EMBED_MODEL": DEFAULT_MODEL, "EMBED_COLLECTION": "vectors-cut"}
    # before there is a worker: this process' settings name the fake model
    cut = submit(TEXTS, collection="vectors-cut", on_long="truncate")
    chunked = submit(TEXTS, collection="vectors-chunked", on_long="chunk")
    with local_worker(tmp_path, env):
        points = {job.id: settle(job) for job in (cut, chunked)}
    assert points[cut.id] == len(TEXTS) < points[chunked.id]
    folder = find_weights(Settings(model=DEFAULT_MODEL))
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)

    with qdrant.connect() as client:
        payloads = compare(client, "vectors-cut", model)
        assert sorted(payload["text"] for payload in payloads) == sorted(TEXTS)
        payloads = compare(client, "vectors-chunked", model)
        assert len(payloads) == points[chunked.id]
        assert join_chunks(payloads) == {
            identity: squeeze(text)
            for identity, text in zip(chunked.document_ids, TEXTS, strict=True)
        }


def settle(job: Job) -> int:
    """How many points it gave."""
    settled = job.wait(TIMEOUT_S)
    assert settled.done == len(TEXTS), settled.errors
    return settled.points


def compare(client: QdrantClient, collection: str, model: SentenceTransformer) -> Payloads:
    """All payloads, after each vector was found to be that of its payload's text."""
    records, _ = client.scroll(collection, limit=10_000, with_vectors=True)
    payloads = [record.payload or {} for record in records]
    stored = np.asarray([record.vector for record in records])
    expected = model.encode([payload["text"] for payload in payloads], show_progress_bar=False)
    cosines = (stored * expected).sum(axis=1) / (
        np.linalg.norm(stored, axis=1) * np.linalg.norm(expected, axis=1)
    )
    print(f"{collection}: {len(payloads)} points, smallest cosine {cosines.min():.7f}")
    assert cosines.min() >= 0.9999
    return payloads


def join_chunks(payloads: Payloads) -> dict[str, str]:
    """Each document's text from its chunks, without white space."""
    texts: defaultdict[str, str] = defaultdict(str)
    for payload in sorted(payloads, key=lambda payload: int(payload["chunk"])):
        texts[payload["document_id"]] += squeeze(payload["text"])
    return dict(texts)


def squeeze(text: str) -> str:
    return re.sub(r"\s", "", text)
