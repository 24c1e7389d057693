"""The seam between the pipeline and a model: what an encoder is, and which one the settings name.

The pipeline and the tests import the protocol; only a process that embeds builds one. Real encoders
import their engine when they are built, never before.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tasks.errors import ModelError
from tasks.messages import ModelCard
from tasks.settings import Settings

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """A text with its token ids as one model reads it: special tokens included, not truncated."""

    text: str
    ids: Sequence[int]
    prompt: str = ""
    """What stands before it in `ids`."""

    def __len__(self) -> int:
        return len(self.ids)


class Encoder(Protocol):
    """A model with its tokenizer, on one device."""

    @property
    def card(self) -> ModelCard: ...

    @property
    def recipe(self) -> str:
        """What makes its vectors of documents, beside the card: weights, engine, prompt."""
        ...

    @property
    def budget_tokens(self) -> int:
        """Padded tokens of a model call that suit this engine and device best, as measured."""
        ...

    def tokenize(self, texts: Sequence[str]) -> list[TokenizedText]:
        """Each document as the model would read it if it read texts of any length."""
        ...

    def tokenize_queries(self, texts: Sequence[str]) -> list[TokenizedText]:
        """The same for queries, which some models want to be told from documents by a prompt."""
        ...

    def split(self, text: str) -> list[str]:
        """Chunks of at most `card.max_tokens` tokens each, special tokens included.

        Borders are those of paragraphs and sentences where possible; only white space is dropped.
        """
        ...

    def encode(self, texts: Sequence[TokenizedText]) -> Vectors:
        """One model call: float32 of shape (len(texts), card.dimension).

        All of them queries or all of them documents; those longer than `card.max_tokens` are
        truncated. Raises ModelError.
        """
        ...


def encode_texts(encoder: Encoder, texts: Sequence[str]) -> Vectors:
    """Tokenize and encode documents in one model call; for few texts. As `Encoder.encode`."""
    return encoder.encode(encoder.tokenize(texts))


def count_tokens(encoder: Encoder, texts: Sequence[str]) -> list[int]:
    """Tokens of each text, special ones included, not truncated."""
    return [len(text) for text in encoder.tokenize(texts)]


def build_encoder(settings: Settings) -> Encoder:
    """The encoder that the settings name, loaded. Raises ModelError with one sentence."""
    if settings.model == "fake":
        from workers.fake import FakeEncoder

        return FakeEncoder(settings)
    with _missing_packages(settings):
        if settings.backend == "onnx-int8":
            from workers.onnx_encoder import load_encoder as load_converted

            return load_converted(settings)
        from workers.torch_encoder import load_encoder

        return load_encoder(settings)


def preload_encoder(settings: Settings) -> None:
    """Load of it what processes that are forked from this one can share: `build_encoder` in them
    finds it. Starts no thread, and nothing of CUDA. Raises ModelError with one sentence."""
    if settings.model == "fake":
        from workers import fake  # noqa: F401

        return
    with _missing_packages(settings):
        if settings.backend == "onnx-int8":
            # not ONNX Runtime itself: importing it starts a thread
            from workers import tokenization  # noqa: F401
        else:
            from workers import torch_encoder

            torch_encoder.preload_encoder(settings)


@contextmanager
def _missing_packages(settings: Settings) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        extra = "int8" if settings.backend == "onnx-int8" else "worker"
        raise ModelError(f"a package is missing ({error}); install embedmill[{extra}]") from error
