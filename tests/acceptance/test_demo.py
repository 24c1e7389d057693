"""The main job on real text, as `make demo` does it, twice on the same data."""

import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from qdrant_client import QdrantClient

from compose.corpus import reference_items
from tasks.settings import DEFAULT_MODEL, Settings
from tests.qdrant_server import local_qdrant
from workers.encoder import Encoder, build_encoder, encode_texts

QUESTION = "how are default parameter values evaluated"
ANSWER = "Default parameter values are evaluated from left to right"
COUNT = len(list(reference_items()))
PARAGRAPHS = f"{COUNT:,} paragraphs accepted = {COUNT:,} done + 0 failed"
Points = dict[str, tuple[dict[str, Any], np.ndarray]]


def demo(folder: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if "EMBED_" not in name}
    done = subprocess.run(
        [Path(sys.executable).with_name("embedmill"), "demo"],
        env=environment | {"EMBED_DATA_DIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def read_points(client: QdrantClient) -> Points:
    """All points by id: their payload without the acceptance number, and their vector."""
    records, _ = client.scroll("documents", limit=10_000, with_vectors=True)
    assert len(records) == client.count("documents").count
    payloads = [{**(record.payload or {}), "sequence": 0} for record in records]
    vectors = [np.asarray(record.vector) for record in records]
    ids = [str(record.id) for record in records]
    return dict(zip(ids, zip(payloads, vectors, strict=True), strict=True))


def expect_points(encoder: Encoder) -> Counter[str]:
    """The text of each point that the paragraphs give: one a chunk of each distinct one."""
    texts = sorted({str(orjson.loads(item.body)["text"]) for item in reference_items()})
    return Counter(chunk for text in texts for chunk in encoder.split(text))


def find_themselves(client: QdrantClient, encoder: Encoder, texts: list[str]) -> int:
    """Of random stored texts, encoded anew, how many are their own nearest."""
    sample = random.Random(7).sample(texts, 50)
    vectors = encode_texts(encoder, sample)
    found = 0
    for text, vector in zip(sample, vectors, strict=True):
        (hit,) = client.query_points("documents", query=vector.tolist(), limit=1).points
        found += (hit.payload or {})["text"] == text
    return found


@pytest.mark.demo
@pytest.mark.timeout(900)
def test_the_language_reference_goes_in_and_answers(tmp_path: Path) -> None:
    shown = demo(tmp_path)
    assert PARAGRAPHS in shown
    answers = shown[shown.index(QUESTION) :]
    assert ANSWER in answers.splitlines()[1]
    encoder = build_encoder(Settings(model=DEFAULT_MODEL, device="cpu"))
    with local_qdrant(tmp_path / "demo" / "qdrant") as server, server.connect() as client:
        before = read_points(client)
        texts = [payload["text"] for payload, _ in before.values()]
        assert Counter(texts) == expect_points(encoder)
        assert find_themselves(client, encoder, texts) == 50
    assert PARAGRAPHS in demo(tmp_path)
    with local_qdrant(tmp_path / "demo" / "qdrant") as server, server.connect() as client:
        after = read_points(client)
    assert after.keys() == before.keys()
    for key, (payload, vector) in after.items():
        assert payload == before[key][0]
        assert np.allclose(vector, before[key][1], atol=1e-4)
