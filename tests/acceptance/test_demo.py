"""The main job on real text, as `make demo` does it, twice on the same data."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from qdrant_client import QdrantClient

from compose.corpus import reference_items
from tasks.settings import DEFAULT_MODEL, Settings
from tests.qdrant_server import local_qdrant
from workers.encoder import build_encoder, encode_texts

QUESTION = "how are default parameter values evaluated"
ANSWER = "Default parameter values are evaluated from left to right"
COUNT = len(list(reference_items()))
PARAGRAPHS = f"{COUNT:,} paragraphs accepted = {COUNT:,} done + 0 failed"


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


def points(folder: Path) -> int:
    with local_qdrant(folder / "demo" / "qdrant") as server, server.connect() as client:
        return client.count("documents").count


def find_themselves(client: QdrantClient, chosen: int) -> int:
    """Of so many random stored texts, encoded anew, how many are their own nearest."""
    records, _ = client.scroll("documents", limit=10_000)
    texts = [str((record.payload or {})["text"]) for record in records]
    sample = random.Random(7).sample(texts, chosen)
    vectors = encode_texts(build_encoder(Settings(model=DEFAULT_MODEL, device="cpu")), sample)
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
    with local_qdrant(tmp_path / "demo" / "qdrant") as server, server.connect() as client:
        before = client.count("documents").count
        assert find_themselves(client, 50) == 50
    assert PARAGRAPHS in demo(tmp_path)
    assert points(tmp_path) == before
