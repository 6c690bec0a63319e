"""The reference is the meaning of the layer, so it is held against ncps and against the maths."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cfc_cases import cfc_twins, random_cfc, random_weights, run_reference
from fastltc import reference
from fastltc.ops import CFC_ACTIVATIONS, CFC_MODES
from ltc_cases import assert_all_close, with_gradients
from ncps_twins import WIRINGS, check_twins


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
    theirs, _ = cfc_twins(5, WIRINGS[wiring], mode=mode)
    x, h0 = torch.randn(3, 4, 5).double(), torch.rand(3, theirs.state_size).double()
    check_twins(theirs, ReferenceLayer(theirs), x, h0)
    timespans = torch.rand(1, 4).double()
    check_twins(theirs, ReferenceLayer(theirs), x, h0, timespans.requires_grad_())


@pytest.mark.parametrize("mode", CFC_MODES)
@pytest.mark.parametrize("activation", CFC_ACTIVATIONS)
@pytest.mark.parametrize("layers", [0, 1, 3])
def test_plain_layers_are_those_of_ncps(layers: int, activation: str, mode: str) -> None:
    theirs, _ = cfc_twins(
        5, 7, mode=mode, activation=activation, backbone_layers=layers, backbone_units=6
    )
    x, h0 = torch.randn(3, 4, 5).double(), torch.rand(3, 7).double()
    check_twins(theirs, ReferenceLayer(theirs), x, h0)
    per_neuron = torch.rand(3, 4, 7).double()
    check_twins(theirs, ReferenceLayer(theirs), x, h0, per_neuron)


@pytest.mark.parametrize("mode", CFC_MODES)
def test_dropout_is_that_of_ncps(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, _ = cfc_twins(
        5, 7, mode=mode, backbone_layers=3, backbone_units=6, backbone_dropout=0.4
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
    case = random_cfc(layer_sizes=(4,), density=None, time=1)
    zero = torch.zeros(3, 1).double()
    _, hn = run_reference(case.with_(timespans=zero))
    w1, b1, w2, b2, _, _, wb, bb = case.parameters.values()
    z = torch.cat([case.data["x"][:, 0], case.data["h0"]], 1)
    f1, f2 = torch.tanh(z @ w1.T + b1), torch.tanh(z @ w2.T + b2)
    r = torch.sigmoid(z @ wb.T + bb)
    torch.testing.assert_close(hn, f1 * (1 - r) + r * f2)


@pytest.mark.parametrize("mode", CFC_MODES)
def test_samples_are_independent(mode: str) -> None:
    case = random_cfc(batch=4, mode=mode, timespans="BTN")
    output, hn = run_reference(case)
    for b in range(4):
        one = case.with_(**{name: tensor[b : b + 1] for name, tensor in case.data.items()})
        alone = run_reference(one)
        assert_all_close(
            {"output": alone[0][0], "hn": alone[1][0]}, {"output": output[b], "hn": hn[b]}
        )


@pytest.mark.parametrize("mode", CFC_MODES)
def test_lengths_cut_each_sample_off(mode: str) -> None:
    case = random_cfc(batch=5, time=6, lengths=True, mode=mode)
    case.lengths[:3] = torch.tensor([0, 6, 1])
    case.data["x"].nan_to_num_()
    case.data["timespans"].nan_to_num_()
    output, hn = run_reference(case)
    last, _ = run_reference(case.with_(return_sequences=False))
    for b, length in enumerate(case.lengths.tolist()):
        one = case.with_(
            lengths=None,
            x=case.data["x"][b : b + 1, :length],
            timespans=case.data["timespans"][b : b + 1, :length],
            h0=case.data["h0"][b : b + 1],
        )
        alone = run_reference(one)
        expected = {"output": alone[0][0], "hn": alone[1][0], "last": alone[1][0, -2:]}
        assert_all_close({"output": output[b, :length], "hn": hn[b], "last": last[b]}, expected)
        assert (output[b, length:] == 0).all()


@pytest.mark.parametrize("mode", CFC_MODES)
def test_what_stands_behind_the_lengths_or_off_the_mask_does_not_matter(mode: str) -> None:
    case = random_cfc(batch=5, time=6, lengths=True, mode=mode, density=0.4)
    results = with_gradients(run_reference, case, random_weights(case))
    assert all(torch.isfinite(value).all() for value in results.values())
    behind = torch.arange(6) >= case.lengths[:, None]
    assert (results["grad of x"][behind] == 0).all()
    assert (results["grad of timespans"][behind] == 0).all()
    for layer, mask in enumerate(case.masks):
        assert (results[f"grad of layer_{layer}.ff1.weight"][mask == 0] == 0).all()


@pytest.mark.parametrize(("batch", "time"), [(0, 3), (3, 0), (0, 0)])
@pytest.mark.parametrize("return_sequences", [True, False])
def test_an_empty_batch_and_an_empty_sequence(
    batch: int, time: int, return_sequences: bool
) -> None:
    case = random_cfc(batch=batch, time=time, return_sequences=return_sequences)
    output, hn = run_reference(case)
    assert output.shape == ((batch, time, 2) if return_sequences else (batch, 2))
    assert torch.equal(hn, case.data["h0"])
    if not return_sequences:
        assert torch.equal(output, hn[:, -2:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_dtype(dtype: torch.dtype) -> None:
    case = random_cfc(poison=False).to(dtype)
    output, hn = run_reference(case)
    assert output.dtype == hn.dtype == dtype
    expected, _ = run_reference(case.to(torch.float64))
    assert (output.double() - expected).abs().max() < 50 * torch.finfo(dtype).eps


@pytest.mark.parametrize("mode", CFC_MODES)
def test_gradients_and_second_derivatives(mode: str) -> None:
    case = random_cfc(2, 2, 2, (2, 1), poison=False, mode=mode)
    leaves = case.requiring_grad().leaves

    def function(*values: Tensor) -> tuple[Tensor, Tensor]:
        named = dict(zip(leaves, values, strict=True))
        data = {name: named.pop(name) for name in case.data}
        return run_reference(case.with_(**data, parameters=named))

    assert torch.autograd.gradcheck(function, tuple(leaves.values()))
    assert torch.autograd.gradgradcheck(function, tuple(leaves.values()))


def test_the_reference_needs_no_extension() -> None:
    code = (
        "import sys, torch, fastltc.reference as reference\n"
        "assert 'fastltc._extension' not in sys.modules, 'the loader is imported'\n"
        "assert not hasattr(torch.ops.fastltc, 'cfc_forward'), 'the operators are loaded'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
