"""The encoder on ONNX Runtime in int8, for CPUs (`EMBED_BACKEND=onnx-int8`). No torch here.

It reads what `workers.conversion` has made of the model, once for all processes of a machine.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import orjson
from tokenizers import Tokenizer

from tasks.errors import ModelError
from tasks.messages import ModelCard
from tasks.settings import Settings, count_threads
from workers import budgets
from workers.converted import GRAPH, INPUTS, OUTPUT, RECIPE, TOKENIZER, find_converted
from workers.encoder import TokenizedText, Vectors
from workers.tokenization import TextTokenizer


class OnnxEncoder:
    """A converted model. Its vectors are within the conversion's quality gate of torch's."""

    budget_tokens = budgets.ONNX_INT8

    def __init__(self, folder: Path, name: str, threads: int) -> None:
        recipe = orjson.loads((folder / RECIPE).read_bytes())
        self.card = ModelCard(name, recipe["dimension"], recipe["max_tokens"], "cpu")
        # the folder's name has a digest of the weights
        self.recipe = f"{folder.name} {recipe['prompt']}"
        self._tokenizer = TextTokenizer(
            Tokenizer.from_file(os.fspath(folder / TOKENIZER)),
            max_tokens=recipe["max_tokens"],
            prompt=recipe["prompt"],
            query_prompt=recipe["query_prompt"],
            pad_id=recipe["pad_id"],
            pad_left=recipe["pad_left"],
        )
        self._session = _open(folder / GRAPH, threads)

    def tokenize(self, texts: Sequence[str]) -> list[TokenizedText]:
        return self._tokenizer.tokenize(texts)

    def tokenize_queries(self, texts: Sequence[str]) -> list[TokenizedText]:
        return self._tokenizer.tokenize_queries(texts)

    def split(self, text: str) -> list[str]:
        return self._tokenizer.split(text)

    def encode(self, texts: Sequence[TokenizedText]) -> Vectors:
        if not texts:
            return np.empty((0, self.card.dimension), dtype=np.float32)
        inputs = dict(zip(INPUTS, self._tokenizer.pad(texts), strict=True))
        (vectors,) = self._session.run([OUTPUT], inputs)
        return np.asarray(vectors, dtype=np.float32)


def load_encoder(settings: Settings) -> OnnxEncoder:
    """The converted model of the settings; converts it if need be. Raises ModelError."""
    folder = find_converted(settings)
    try:
        return OnnxEncoder(folder, settings.model_name, settings.threads or count_threads())
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"the converted model in {folder} cannot be read: {error}") from error


def _open(graph: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # threads that spin while they wait take the cores from the other children
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        os.fspath(graph), options, providers=["CPUExecutionProvider"]
    )
