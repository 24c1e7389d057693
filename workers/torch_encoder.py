"""The encoder on torch: a SentenceTransformer. Imported only where a model is loaded, or shared.

A worker's main process imports it for its children, and on a CPU loads the model for them.
Threads of torch's pools do not survive a fork, and CUDA refuses one: until a process has forked it
computes in one thread and asks nothing of CUDA.
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
from tasks.gpus import list_gpus
from tasks.messages import ModelCard
from tasks.settings import Settings, count_threads
from workers import budgets
from workers.encoder import TokenizedText, Vectors
from workers.packing import pack_linears
from workers.tokenization import TextTokenizer
from workers.weights import find_weights, read_revision

DTYPES = {"torch": torch.float32, "torch-bf16": torch.bfloat16, "torch-fp16": torch.float16}


class SentenceTransformerEncoder:
    """Embeds exactly as `model.encode` does, from token ids."""

    def __init__(self, model: SentenceTransformer, name: str, made_of: str) -> None:
        """`made_of` tells weights and engine from others."""
        self.model = model.eval()
        self.tokenizer = _tokenizer(model)
        self.recipe = f"{made_of} {self.tokenizer.prompt}"
        self.card = ModelCard(name, _dimension(model), _max_tokens(model), model.device.type)
        self.budget_tokens = budgets.TORCH.get(self.card.device, budgets.TORCH["cpu"])
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


_preloaded: SentenceTransformerEncoder | None = None


def load_encoder(settings: Settings) -> SentenceTransformerEncoder:
    """The model of the settings on their device. Raises ModelError with one sentence."""
    device = _device(settings)
    threads = settings.threads or count_threads()
    if threads:
        torch.set_num_threads(threads)
    if _preloaded is not None and device == "cpu":
        return _preloaded
    model = load_model(settings, device)
    if device == "cpu":
        pack_linears(model)
    return wrap(model, settings)


def wrap(model: SentenceTransformer, settings: Settings) -> SentenceTransformerEncoder:
    """The encoder that computes with a loaded model."""
    made_of = f"{settings.backend} {read_revision(find_weights(settings))}"
    return SentenceTransformerEncoder(model, settings.model_name, made_of)


def preload_encoder(settings: Settings) -> None:
    """Load it for processes that are forked from this one, if it runs on a CPU, as far as one can
    tell without asking CUDA; where that was wrong they load their own. Raises ModelError."""
    global _preloaded  # noqa: PLW0603  # what children find after the fork
    torch.set_num_threads(1)
    if settings.device in {"auto", "cpu"} and not list_gpus(settings):
        _preloaded = load_encoder(settings.model_copy(update={"device": "cpu", "threads": 1}))


def load_model(settings: Settings, device: str) -> SentenceTransformer:
    """Its layers as they are. Raises ModelError with one sentence."""
    folder = find_weights(settings)
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        return SentenceTransformer(
            os.fspath(folder),
            device=device,
            local_files_only=True,
            model_kwargs={"dtype": DTYPES[settings.backend]},
        )
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ModelError(f"EMBED_MODEL={settings.model} cannot be loaded: {reason}") from error


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
