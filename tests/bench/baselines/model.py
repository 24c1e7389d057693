"""What all baselines share: the model, a point, and the word that they are warm.

Their settings come by environment, which `tests.bench.sides` writes.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import NAMESPACE_URL, uuid5

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

MODEL = "BASELINE_MODEL"
QDRANT_URL = "BASELINE_QDRANT_URL"
BROKER_URL = "BASELINE_BROKER_URL"
READY = "BASELINE_READY"
"""A folder in which each process leaves a file when it is warm."""
WARM_UP = "A short sentence that every model can read."


def load_model() -> "SentenceTransformer":
    """On the CPU, and warm."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(os.environ[MODEL], device="cpu", local_files_only=True)
    model.encode(WARM_UP, show_progress_bar=False)
    return model


def point(text: str, vector: Sequence[float]) -> dict[str, object]:
    """The same text twice is one point, as in ours."""
    return {"id": str(uuid5(NAMESPACE_URL, text)), "vector": vector, "payload": {"text": text}}


def tell_ready() -> None:
    Path(os.environ[READY], str(os.getpid())).touch()
