"""The encoder on torch: a SentenceTransformer. Imported only where a model is loaded.

A pool child imports it after the fork: torch's thread pools and CUDA do not survive one.
"""

import os
from collections.abc import Sequence

import numpy as np
import torch
import transformers
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Transformer
from tokenizers import Tokenizer

from tasks.errors import ModelError
from tasks.messages import ModelCard
from tasks.settings import Settings
from workers.encoder import TokenizedText, Vectors
from workers.packing import pack_linears
from workers.tokenization import TextTokenizer
from workers.weights import find_weights, read_revision

DTYPES = {"torch": torch.float32, "torch-bf16": torch.bfloat16, "torch-fp16": torch.float16}

BUDGET_TOKENS = {"cpu": 512, "mps": 4096, "cuda": 32768}
"""CPU: 62 texts/s a core with 512, 51 with 128, 53 with 4,096, measured on the demo's text: beyond
the cache large intermediates cost more than the call they save. A GPU wants to be filled; its
numbers are from the literature, see docs/decisions/0010-encoders.md."""


class SentenceTransformerEncoder:
    """Embeds exactly as `model.encode` does, from token ids."""

    def __init__(self, model: SentenceTransformer, name: str, made_of: str) -> None:
        """`made_of` tells weights and engine from others."""
        self.model = model.eval()
        self.tokenizer = _tokenizer(model)
        self.recipe = f"{made_of} {self.tokenizer.prompt}"
        self.card = ModelCard(name, _dimension(model), _max_tokens(model), model.device.type)
        self.budget_tokens = BUDGET_TOKENS.get(self.card.device, BUDGET_TOKENS["cpu"])
        # what is no transformer of texts (static embeddings, say) reads texts its own way
        self._reads_ids = isinstance(model[0], Transformer)
        self._prompt_tokens = {
            prompt: self.tokenizer.count_prompt_tokens(prompt)
            for prompt in (self.tokenizer.prompt, self.tokenizer.query_prompt)
        }

    def tokenize(self, texts: Sequence[str]) -> list[TokenizedText]:
        return self.tokenizer.tokenize(texts)

    def tokenize_queries(self, texts: Sequence[str]) -> list[TokenizedText]:
        return self.tokenizer.tokenize_queries(texts)

    def split(self, text: str) -> list[str]:
        return self.tokenizer.split(text)

    def encode(self, texts: Sequence[TokenizedText]) -> Vectors:
        if not texts:
            return np.empty((0, self.card.dimension), dtype=np.float32)
        embedded = self._embed(texts) if self._reads_ids else self._embed_texts(texts)
        return embedded.float().cpu().numpy()[:, : self.card.dimension]

    def features(
        self, ids: torch.Tensor, mask: torch.Tensor, prompt: str
    ) -> dict[str, torch.Tensor | int]:
        """What the model's first module reads: (texts, tokens) ids and attention mask."""
        read: dict[str, torch.Tensor | int] = {"input_ids": ids, "attention_mask": mask}
        if "token_type_ids" in self.model.tokenizer.model_input_names:
            read["token_type_ids"] = torch.zeros_like(ids)
        prompt_tokens = self._prompt_tokens[prompt]
        if prompt_tokens is not None:
            read["prompt_length"] = prompt_tokens
        return read

    @torch.inference_mode()
    def _embed(self, texts: Sequence[TokenizedText]) -> torch.Tensor:
        ids, mask = (
            torch.from_numpy(array).to(self.model.device) for array in self.tokenizer.pad(texts)
        )
        embedded: torch.Tensor = self.model(self.features(ids, mask, texts[0].prompt))[
            "sentence_embedding"
        ]
        return embedded

    def _embed_texts(self, texts: Sequence[TokenizedText]) -> torch.Tensor:
        return self.model.encode(
            [text.text for text in texts],
            prompt=texts[0].prompt,
            batch_size=len(texts),
            show_progress_bar=False,
            convert_to_tensor=True,
        )


def load_encoder(settings: Settings, *, pack: bool = True) -> SentenceTransformerEncoder:
    """The model of the settings on their device. Raises ModelError with one sentence.

    `pack=False` keeps its layers as they are, for exports.
    """
    folder = find_weights(settings)
    device = _device(settings)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model = SentenceTransformer(
            os.fspath(folder),
            device=device,
            local_files_only=True,
            model_kwargs={"dtype": DTYPES[settings.backend]},
        )
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ModelError(f"EMBED_MODEL={settings.model} cannot be loaded: {reason}") from error
    if pack and device == "cpu":
        pack_linears(model)
    made_of = f"{settings.backend} {read_revision(folder)}"
    return SentenceTransformerEncoder(model, settings.model_name, made_of)


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


def _tokenizer(model: SentenceTransformer) -> TextTokenizer:
    """Over a copy of the model's own."""
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise ModelError("the model's tokenizer is not one of the `tokenizers` library")
    return TextTokenizer(
        Tokenizer.from_str(backend.to_str()),
        max_tokens=_max_tokens(model),
        prompt=_prompt(model, "document", "passage", "corpus"),
        query_prompt=_prompt(model, "query"),
        pad_id=getattr(model.tokenizer, "pad_token_id", None) or 0,
        pad_left=getattr(model.tokenizer, "padding_side", "right") == "left",
    )


def _prompt(model: SentenceTransformer, *names: str) -> str:
    """The first of these that the model defines, else its default one, else none.

    The library fills in empty ones, which say nothing, and its `encode_query` takes them."""
    prompts = (model.prompts.get(name) for name in (*names, model.default_prompt_name or ""))
    return next((prompt for prompt in prompts if prompt), "")


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
