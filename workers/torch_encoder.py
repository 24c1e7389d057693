"""The real encoder: a SentenceTransformer on torch. Imported only where a model is loaded.

A pool child imports it after the fork: torch's thread pools and CUDA do not survive one.
"""

import os
from collections.abc import Sequence
from threading import Lock

import numpy as np
import torch
import transformers
from semantic_text_splitter import TextSplitter
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer

from tasks.errors import ModelError
from tasks.messages import ModelCard
from tasks.settings import Settings
from workers.chunks import split_text
from workers.encoder import Vectors
from workers.weights import find_weights


class SentenceTransformerEncoder:
    """Embeds exactly as `model.encode` does. Calls take turns: tokenizers are not thread safe."""

    def __init__(self, model: SentenceTransformer, name: str) -> None:
        self._model = model
        self._lock = Lock()
        self._tokenizer = _whole_text_tokenizer(model)
        self._prompt = model.prompts.get(model.default_prompt_name or "") or ""
        self.card = ModelCard(name, _dimension(model), _max_tokens(model), model.device.type)
        overhead = self.count_tokens([""])[0]
        if overhead >= self.card.max_tokens:
            raise ModelError(f"{name} reads {self.card.max_tokens} tokens: no room for a text")
        self._splitter = TextSplitter.from_huggingface_tokenizer(
            self._tokenizer, self.card.max_tokens - overhead
        )

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        with self._lock:
            read = self._tokenizer.encode_batch_fast([self._prompt + text for text in texts])
        return [len(encoding) for encoding in read]

    def split(self, text: str) -> list[str]:
        with self._lock:
            return split_text(text, self._splitter, self.card.max_tokens)

    def encode(self, texts: Sequence[str]) -> Vectors:
        with self._lock:
            vectors = self._model.encode(
                list(texts), batch_size=max(1, len(texts)), show_progress_bar=False
            )
        return np.asarray(vectors, dtype=np.float32).reshape(len(texts), -1)


def load_encoder(settings: Settings) -> SentenceTransformerEncoder:
    """The model of the settings on their device. Raises ModelError with one sentence."""
    folder = find_weights(settings)
    device = _device(settings)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model = SentenceTransformer(os.fspath(folder), device=device, local_files_only=True)
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ModelError(f"EMBED_MODEL={settings.model} cannot be loaded: {reason}") from error
    return SentenceTransformerEncoder(model, settings.model_name)


def _device(settings: Settings) -> str:
    wished = settings.device
    if wished == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wished == "cuda" and not torch.cuda.is_available():
        raise ModelError(
            "EMBED_DEVICE=cuda, but torch sees no CUDA device here; set EMBED_DEVICE=cpu, or "
            "install a CUDA build of torch and a driver"
        )
    if wished == "mps" and not torch.backends.mps.is_available():
        raise ModelError("EMBED_DEVICE=mps, but torch sees no Apple GPU here; set EMBED_DEVICE=cpu")
    return wished


def _whole_text_tokenizer(model: SentenceTransformer) -> Tokenizer:
    """A copy that neither truncates nor pads, so that lengths are those of the whole text."""
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise ModelError("the model's tokenizer is not one of the `tokenizers` library")
    tokenizer = Tokenizer.from_str(backend.to_str())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _dimension(model: SentenceTransformer) -> int:
    dimension = model.get_embedding_dimension()
    if not dimension:
        raise ModelError("the model does not say how large its vectors are")
    return dimension


def _max_tokens(model: SentenceTransformer) -> int:
    tokens = model.max_seq_length
    if not tokens:
        raise ModelError("the model does not say how many tokens it reads: max_seq_length is unset")
    return int(tokens)
