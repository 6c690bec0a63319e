"""The reference of CfC is the meaning of the layer, so it is held against ncps and the maths."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastltc import reference
from fastltc.ops import CFC_ACTIVATIONS, CFC_MODES
from layers import CfcCase, run_reference
from ncps_twins import WIRINGS, check_twins, twins


def linears(*modules: nn.Module) -> list[Tensor]:
    return [p for module in modules for p in (module.weight, module.bias)]


class ReferenceLayer(nn.Module):
    """The reference with the parameters of a layer of ncps."""

    def __init__(self, layer: nn.Module, dropout: Tensor | None = None) -> None:
        super().__init__()
        self.rnn_cell = layer.rnn_cell
        self.dropout = dropout

    def forward(
        self, x: Tensor, h0: Tensor | None = None, timespans: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        cells = getattr(self.rnn_cell, "_layers", [self.rnn_cell])
        backbone = getattr(self.rnn_cell, "backbone", None)
        options: dict[str, Any] = {"mode": cells[0].mode, "masks": []}
        parameters = []
        if backbone is not None:
            dense = [m for m in backbone if isinstance(m, nn.Linear)]
            parameters += linears(*dense)
            kinds = {nn.SiLU: "silu", nn.ReLU: "relu", nn.Tanh: "tanh", nn.GELU: "gelu"}
            options["activation"] = kinds.get(type(backbone[1]), "lecun_tanh")
            options["backbone_layers"] = len(dense)
        for cell in cells:
            if cell.mode == "pure":
                parameters += [*linears(cell.ff1), cell.w_tau, cell.A]
            else:
                parameters += linears(cell.ff1, cell.ff2, cell.time_a, cell.time_b)
            if cell.sparsity_mask is not None:
                options["masks"].append(cell.sparsity_mask)
        return reference.cfc(
            *(x, h0, timespans),
            parameters=parameters,
            layer_sizes=[cell.hidden_size for cell in cells],
            dropout=self.dropout,
            **options,
        )


@pytest.mark.parametrize("mode", CFC_MODES)
@pytest.mark.parametrize("wiring", WIRINGS)
def test_wired_layers_are_those_of_ncps(wiring: str, mode: str) -> None:
    theirs, _ = twins(WIRINGS[wiring], 5, "CfC", mode=mode)
    x, h0 = torch.randn(3, 4, 5).double(), torch.rand(3, theirs.state_size).double()
    check_twins(theirs, ReferenceLayer(theirs), x, h0)
    timespans = torch.rand(1, 4).double()
    check_twins(theirs, ReferenceLayer(theirs), x, h0, timespans.requires_grad_())


@pytest.mark.parametrize("mode", CFC_MODES)
@pytest.mark.parametrize("activation", CFC_ACTIVATIONS)
@pytest.mark.parametrize("layers", [0, 1, 3])
def test_plain_layers_are_those_of_ncps(layers: int, activation: str, mode: str) -> None:
    theirs, _ = twins(
        7, 5, "CfC", mode=mode, activation=activation, backbone_layers=layers, backbone_units=6
    )
    x, h0 = torch.randn(3, 4, 5).double(), torch.rand(3, 7).double()
    check_twins(theirs, ReferenceLayer(theirs), x, h0)
    per_neuron = torch.rand(3, 4, 7).double()
    check_twins(theirs, ReferenceLayer(theirs), x, h0, per_neuron)


@pytest.mark.parametrize("mode", CFC_MODES)
def test_dropout_is_that_of_ncps(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, _ = twins(
        7, 5, "CfC", mode=mode, backbone_layers=3, backbone_units=6, backbone_dropout=0.4
    )
    factors = (torch.rand(2, 3, 4, 6) > 0.4).double() / 0.6
    calls: list[int] = []

    def drop(x: Tensor, p: float, training: bool, inplace: bool) -> Tensor:
        step, layer = divmod(len(calls) % 8, 2)
        calls.append(0)
        return x * factors[layer, :, step]

    monkeypatch.setattr(F, "dropout", drop)
    check_twins(theirs, ReferenceLayer(theirs, factors), torch.randn(3, 4, 5).double())
    assert len(calls) == 8


def test_a_time_step_of_zero_leaves_the_constant_part_of_the_gate() -> None:
    case = CfcCase.random(layer_sizes=(4,), density=None, time=1)
    zero = torch.zeros(3, 1).double()
    _, hn = run_reference(case.with_(timespans=zero))
    w1, b1, w2, b2, _, _, wb, bb = case.parameters.values()
    z = torch.cat([case.data["x"][:, 0], case.data["h0"]], 1)
    f1, f2 = torch.tanh(z @ w1.T + b1), torch.tanh(z @ w2.T + b2)
    r = torch.sigmoid(z @ wb.T + bb)
    torch.testing.assert_close(hn, f1 * (1 - r) + r * f2)
