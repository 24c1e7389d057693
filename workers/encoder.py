"""The seam between the pipeline and a model: what an encoder is, and which one the settings name.

The pipeline and the tests import the protocol; only a process that embeds builds one. Real encoders
import torch when they are built, never before.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tasks.errors import ModelError
from tasks.messages import ModelCard
from tasks.settings import Settings

Vectors = NDArray[np.float32]


class Encoder(Protocol):
    """A model with its tokenizer, on one device."""

    @property
    def card(self) -> ModelCard: ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text as the model would read it: with special tokens, not truncated."""
        ...

    def split(self, text: str) -> list[str]:
        """Chunks of at most `card.max_tokens` tokens each, special tokens included.

        Borders are those of paragraphs and sentences where possible; only white space is dropped.
        """
        ...

    def encode(self, texts: Sequence[str]) -> Vectors:
        """One model call: float32 of shape (len(texts), card.dimension).

        Texts longer than `card.max_tokens` are truncated. Raises ModelError.
        """
        ...


def build_encoder(settings: Settings) -> Encoder:
    """The encoder that the settings name, loaded. Raises ModelError with one sentence."""
    if settings.model == "fake":
        from workers.fake import FakeEncoder

        return FakeEncoder(settings)
    try:
        from workers.torch_encoder import load_encoder
    except ImportError as error:
        raise ModelError(f"a package is missing ({error}); install embedmill[worker]") from error
    return load_encoder(settings)
