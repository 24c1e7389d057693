"""Packed layers compute the same, and are only taken where they are faster."""

import pytest
import torch
from torch import nn

from workers import packing
from workers.packing import PackedLinear, pack_linears

pytestmark = pytest.mark.model


def network() -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(24, 96), nn.GELU(), nn.Sequential(nn.Linear(96, 24, bias=False)))


@pytest.fixture
def faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_is_faster", lambda *_: True)


@pytest.mark.usefixtures("faster")
@pytest.mark.parametrize("shape", [(1, 24), (7, 24), (2, 5, 24), (600, 24)])
def test_packed_layers_compute_the_same(shape: tuple[int, ...]) -> None:
    plain, packed = network(), network()
    assert pack_linears(packed)
    assert [type(layer) for layer in packed.modules()].count(PackedLinear) == 2
    with torch.inference_mode():
        rows = torch.randn(shape)
        assert torch.allclose(packed(rows), plain(rows), atol=1e-6)


@pytest.mark.usefixtures("faster")
def test_other_types_stay_as_they_are() -> None:
    assert not pack_linears(network().bfloat16())
    assert not pack_linears(nn.GELU())


@pytest.mark.usefixtures("faster")
def test_large_models_keep_the_weights_of_their_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packing, "MOST_BYTES", 2 * 24 * 96 * 4 - 1)
    assert not pack_linears(network())


def test_what_is_no_faster_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_time", lambda *_: 1.0)
    model = network()
    assert not pack_linears(model)
    assert not any(isinstance(layer, PackedLinear) for layer in model.modules())


def test_a_torch_without_the_operators_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_can_pack", lambda: False)
    assert not pack_linears(network())


def test_operators_that_refuse_their_arguments_are_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> float:
        raise RuntimeError("expected at most 5 arguments")

    monkeypatch.setattr(packing, "_time", refuse)
    assert not pack_linears(network())
