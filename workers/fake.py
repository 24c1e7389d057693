"""The fake encoder: the whole product without weights and without torch (`EMBED_MODEL=fake`).

`build_encoder` imports it. A text's vector follows from its hash, so it is the same everywhere and
at all times; a call can be made to cost what a real one would.
"""

import hashlib
import os
import signal
import time
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from semantic_text_splitter import TextSplitter

from tasks.messages import ModelCard
from tasks.settings import Settings
from workers import budgets
from workers.chunks import split_text
from workers.encoder import TokenizedText, Vectors

MAX_TOKENS = 256


class FakeEncoder:
    """Unit vectors from hashes; a token is what stands between white space."""

    POISON: ClassVar[str] = "embedmill:kill-this-process"
    """With EMBED_FAKE_POISON, what no process survives to read: as a crash in a real model's
    native code would, it leaves no time for an exception."""

    recipe = ""

    def __init__(self, settings: Settings) -> None:
        self.card = fake_card(settings)
        self.budget_tokens = budgets.FAKE
        self._call_s = settings.fake_call_ms / 1000
        self._text_s = settings.fake_text_ms / 1000
        self._poisonous = settings.fake_poison
        self._splitter = TextSplitter.from_callback(_count, MAX_TOKENS)

    def tokenize(self, texts: Sequence[str]) -> list[TokenizedText]:
        return [TokenizedText(text, range(_count(text))) for text in texts]

    def tokenize_queries(self, texts: Sequence[str]) -> list[TokenizedText]:
        return self.tokenize(texts)

    def split(self, text: str) -> list[str]:
        return split_text(text, self._splitter, MAX_TOKENS)

    def encode(self, texts: Sequence[TokenizedText]) -> Vectors:
        if self._poisonous and any(self.POISON in text.text for text in texts):
            os.kill(os.getpid(), signal.SIGKILL)
        cost_s = self._call_s + self._text_s * len(texts)
        if cost_s > 0:
            time.sleep(cost_s)
        vectors = np.empty((len(texts), self.card.dimension), dtype=np.float32)
        for row, text in enumerate(texts):
            vectors[row] = _unit_vector(text.text, self.card.dimension)
        return vectors


def fake_card(settings: Settings) -> ModelCard:
    """The fake encoder's card."""
    return ModelCard("fake", settings.fake_dimension, MAX_TOKENS, "cpu")


def _count(text: str) -> int:
    return len(text.split())


def _unit_vector(text: str, dimension: int) -> NDArray[np.float64]:
    read = " ".join(text.split()[:MAX_TOKENS])
    digest = hashlib.shake_256(read.encode()).digest(4 * dimension)
    vector = np.frombuffer(digest, dtype="<i4").astype(np.float64)
    unit: NDArray[np.float64] = vector / np.linalg.norm(vector)
    return unit
