"""Makes a model's int8 form for ONNX Runtime: `python -m workers.conversion SOURCE TARGET`.

`workers.converted` runs it in a process of its own. Export by torch, dynamic quantization by ONNX
Runtime with a scale for each row of the weights (one for all of a matrix loses too much: cosine
0.956 instead of 0.994), and a quality gate on real text. See docs/decisions/0010-encoders.md.
"""

import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import orjson
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic

from tasks.errors import EmbedError, ModelError
from tasks.settings import Settings
from workers.converted import GRAPH, INPUTS, OUTPUT, RECIPE, TOKENIZER
from workers.encoder import Encoder, Vectors
from workers.onnx_encoder import OnnxEncoder
from workers.plan import plan
from workers.reference import read_paragraphs
from workers.torch_encoder import SentenceTransformerEncoder, load_model, wrap

LEAST_COSINE = 0.99
LEAST_OVERLAP = 0.88
"""Of the ten nearest neighbours of each text."""
NEIGHBOURS = 10
GATE_TEXTS = 200
OPSET = 18


class _Whole(torch.nn.Module):
    """From ids and mask to the text's vector, pooling and normalization included."""

    def __init__(self, encoder: SentenceTransformerEncoder) -> None:
        super().__init__()
        self.model = encoder.model
        self._encoder = encoder

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        prompt = self._encoder.tokenizer.prompt
        embedded: torch.Tensor = self.model(self._encoder.features(ids, mask, prompt))[OUTPUT]
        return embedded[:, : self._encoder.card.dimension]


def convert(source: Path, target: Path) -> None:
    """Fill the folder `target`. Raises ModelError when the model is not one that can be converted,
    or loses more than the gate allows."""
    settings = Settings(model=str(source), device="cpu", backend="torch", threads=None)
    encoder = wrap(load_model(settings, "cpu"), settings)
    _refuse_two_prompt_lengths(encoder)
    exported = target / "exported.onnx"
    _export(encoder, exported)
    _describe(encoder, target)
    texts = read_paragraphs(GATE_TEXTS)
    expected = _encode_all(encoder, texts)
    refusal = ""
    # CPUs without VNNI add up int8 products in 16 bits, which overflow unless weights have 7 bits
    for reduce_range in (False, True):
        _quantize(exported, target / GRAPH, reduce_range=reduce_range)
        made = _encode_all(OnnxEncoder(target, encoder.card.name, 1), texts)
        refusal = judge(expected, made)
        if not refusal:
            break
    for file in target.glob(f"{exported.name}*"):
        file.unlink()
    if refusal:
        raise ModelError(f"{refusal}; set EMBED_BACKEND=torch")


def _refuse_two_prompt_lengths(encoder: SentenceTransformerEncoder) -> None:
    """The length of a prompt that pooling leaves out becomes a constant of the graph."""
    leaves_out = any(getattr(part, "include_prompt", True) is False for part in encoder.model)
    tokenizer = encoder.tokenizer
    if leaves_out and tokenizer.prompt != tokenizer.query_prompt:
        raise ModelError(
            "its pooling leaves out the prompt, which is another one for queries; "
            "set EMBED_BACKEND=torch"
        )


def judge(expected: Vectors, made: Vectors) -> str:
    """What is wrong with `made` as a stand-in for `expected`, both (texts, dimension); or ""."""
    left, right = _unit(expected), _unit(made)
    cosine = float((left * right).sum(axis=1).mean())
    if not cosine >= LEAST_COSINE:  # NaN is not
        return f"the mean cosine to the model's own vectors is {cosine:.3f}, not {LEAST_COSINE}"
    overlap = measure_overlap(left, right, NEIGHBOURS)
    if overlap < LEAST_OVERLAP:
        return f"of ten nearest neighbours {overlap:.2f} stay the same, not {LEAST_OVERLAP}"
    return ""


def measure_overlap(left: Vectors, right: Vectors, neighbours: int) -> float:
    """Share of each row's nearest rows by `left` that are so by `right`, too; unit rows."""
    ours, theirs = _nearest(left, neighbours), _nearest(right, neighbours)
    shared = [len(set(a) & set(b)) for a, b in zip(ours, theirs, strict=True)]
    return float(np.mean(shared)) / neighbours


def _nearest(vectors: Vectors, neighbours: int) -> list[list[int]]:
    likeness = vectors @ vectors.T
    np.fill_diagonal(likeness, -np.inf)
    found: list[list[int]] = np.argsort(-likeness, axis=1)[:, :neighbours].tolist()
    return found


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / lengths, dtype=np.float32)


def _export(encoder: SentenceTransformerEncoder, path: Path) -> None:
    dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    example = torch.ones((3, min(17, encoder.card.max_tokens)), dtype=torch.int64)
    with torch.no_grad():
        program = torch.onnx.export(
            _Whole(encoder).eval(),
            (example, example.clone()),
            dynamo=True,
            dynamic_shapes=(dynamic, dynamic),
            input_names=list(INPUTS),
            output_names=[OUTPUT],
            opset_version=OPSET,
            verbose=False,
        )
    if program is None:
        raise ModelError("torch exports nothing of it")
    program.save(path)


def _quantize(exported: Path, path: Path, *, reduce_range: bool) -> None:
    large = exported.stat().st_size > onnx.checker.MAXIMUM_PROTOBUF // 2
    quantize_dynamic(
        exported,
        path,
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=reduce_range,
        op_types_to_quantize=["MatMul", "Gemm"],
        use_external_data_format=large,
    )


def _describe(encoder: SentenceTransformerEncoder, target: Path) -> None:
    tokenizer = encoder.tokenizer
    (target / TOKENIZER).write_text(tokenizer.to_json(), encoding="utf-8")
    recipe = {
        "dimension": encoder.card.dimension,
        "max_tokens": tokenizer.max_tokens,
        "prompt": tokenizer.prompt,
        "query_prompt": tokenizer.query_prompt,
        "pad_id": tokenizer.pad_id,
        "pad_left": tokenizer.pad_left,
    }
    (target / RECIPE).write_bytes(orjson.dumps(recipe))


def _encode_all(encoder: Encoder, texts: Sequence[str]) -> Vectors:
    read = encoder.tokenize(texts)
    vectors = np.empty((len(texts), encoder.card.dimension), dtype=np.float32)
    lengths = [min(len(text), encoder.card.max_tokens) for text in read]
    for batch in plan(lengths, encoder.budget_tokens):
        vectors[batch] = encoder.encode([read[at] for at in batch])
    return vectors


def main() -> None:
    """The command; a failure is one sentence, last on stderr."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    try:
        convert(Path(sys.argv[1]), Path(sys.argv[2]))
    except EmbedError as error:
        sys.exit(error.detail)
    # The exporter raises whatever it stumbles over: what it is belongs into one sentence, too.
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {error}".splitlines()[0])


if __name__ == "__main__":
    main()
