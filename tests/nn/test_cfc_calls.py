"""What is special about calling CfC: dropout, projections, options, masks, errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ncps.wirings import NCP, AutoNCP, FullyConnected, Wiring

from fastltc import CfC, CfCCell, WiredCfCCell

B, T, I, N = 3, 4, 5, 19  # noqa: E741
KINDS = ("wired", "plain")


def make(kind: str = "wired", **options: bool) -> CfC:
    units = AutoNCP(N, 2) if kind == "wired" else N
    return CfC(I, units, **options).double()


def test_dropout_is_drawn_anew_at_every_step_in_training_only() -> None:
    layer = CfC(I, 7, backbone_layers=3, backbone_units=6, backbone_dropout=0.5).double()
    cell = layer.rnn_cell
    x = torch.randn(64, 50, I).double()
    factors = cell._dropout_factors(x, cell._find_parts())
    assert factors.shape == (2, 64, 50, 6)
    assert set(factors.unique().tolist()) == {0.0, 2.0}
    assert abs(factors.mean().item() - 1) < 0.05
    for axis in range(4):
        assert not torch.equal(factors.select(axis, 0), factors.select(axis, 1))
    torch.manual_seed(0)
    first = layer(x)[0]
    assert not torch.equal(layer(x)[0], first)
    torch.manual_seed(0)
    assert torch.equal(layer(x)[0], first)
    layer.eval()
    assert torch.equal(layer(x)[0], layer(x)[0])
    without = CfC(I, 7, backbone_layers=3, backbone_units=6).double()
    wanted = [v.clone() for v in layer.state_dict().values()]
    without.load_state_dict(dict(zip(without.state_dict(), wanted, strict=True)))
    assert torch.equal(layer(x)[0], without(x)[0])


def test_dropout_follows_its_modules() -> None:
    layer = CfC(I, 7, backbone_layers=3, backbone_dropout=0.5).eval()
    drops = [m for m in layer.modules() if isinstance(m, torch.nn.Dropout)]
    assert len(drops) == 2
    cell, x = layer.rnn_cell, torch.randn(9, 8, I)
    assert cell._dropout_factors(x, cell._find_parts()) is None
    drops[1].train()  # as for uncertainty estimates at inference
    factors = cell._dropout_factors(x, cell._find_parts())
    assert (factors[0] == 1).all()
    assert (factors[1] == 0).any()
    drops[1].p = 0.75
    assert set(cell._dropout_factors(x, cell._find_parts())[1].unique().tolist()) == {0.0, 4.0}
    drops[1].p = 1.0
    assert (cell._dropout_factors(x, cell._find_parts())[1] == 0).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "shape", [(B, T, 1), (B, T, I + 1), (T, 1), (I,), (), (1, B, T, I)], ids=str
)
def test_shape_of_the_input(shape: tuple[int, ...], kind: str) -> None:
    layer = make(kind)
    with pytest.raises(
        ValueError, match=rf"input: .* I = 5 features, got \[{str(shape)[1:-1].rstrip(',')}\]"
    ):
        layer(torch.randn(shape).double())


@pytest.mark.parametrize("kind", KINDS)
def test_shape_of_the_state_is_not_broadcast(kind: str) -> None:
    layer, x = make(kind), torch.randn(2, T, I).double()
    for shape in ((1, N), (N,), (2, N + 1), (2, 1), (1, 2, N), (3, N)):
        bad = torch.zeros(shape).double()
        with pytest.raises(ValueError, match=r"hx: expected shape \[2, 19\], got \["):
            layer(x, bad)
        with pytest.raises(ValueError, match=r"hx: expected shape \[2, 19\], got \["):
            layer.rnn_cell(x[:, 0], bad, 1.0)
    with pytest.raises(ValueError, match=r"hx: expected shape \[19\], got \[1, 19\]"):
        layer(x[0], torch.zeros(1, N).double())


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_arguments(kind: str) -> None:
    layer, x, h = make(kind), torch.randn(B, T, I).double(), torch.zeros(B, N).double()
    mixed = make(kind, mixed_memory=True)
    with pytest.raises(TypeError, match=r"hx: expected a pair of tensors .*, got one tensor"):
        mixed(x, h)
    with pytest.raises(TypeError, match=r"hx: expected a tensor, got tuple"):
        layer(x, (h, h))
    with pytest.raises(TypeError, match=r"input: expected a tensor or PackedSequence, got list"):
        layer([1.0])
    with pytest.raises(TypeError, match=r"input: expected a tensor, got list"):
        layer.rnn_cell([1.0], h, 1.0)
    with pytest.raises(
        ValueError, match=r"input: expected shape \[B, I\] with I = 5, got \[3, 4\]"
    ):
        layer.rnn_cell(x[:, 0, :4], h, 1.0)
    with pytest.raises(TypeError, match=r"input: expected torch.float64, .* got torch.float32"):
        layer(x.float())
    with pytest.raises(TypeError, match=r"hx: expected torch.float64, .* got torch.float32"):
        layer(x, h.float())
    with pytest.raises(TypeError, match=r"input: expected a tensor on cpu, .* got one on meta"):
        layer(x.to("meta"))
    with pytest.raises(TypeError, match=r"timespans: expected a number or a tensor, got str"):
        layer(x, timespans="1")


def test_bad_options() -> None:
    for argument in ("backbone_units", "backbone_layers", "backbone_dropout"):
        with pytest.raises(ValueError, match=rf"{argument}: expected None with a wiring, got 1"):
            CfC(I, AutoNCP(N, 2), **{argument: 1})
    with pytest.raises(ValueError, match=r"mode: expected one of .*, got 'impure'"):
        CfC(I, 7, mode="impure")
    with pytest.raises(ValueError, match=r"mode: expected one of .*, got 'impure'"):
        WiredCfCCell(I, AutoNCP(N, 2), "impure")
    with pytest.raises(ValueError, match=r"backbone_activation: expected one of .*, got 'sin'"):
        CfC(I, 7, activation="sin")
    for units in ("7", None, 1.5):
        with pytest.raises(TypeError, match=r"units: expected an ncps.wirings.Wiring or a number"):
            CfC(I, units)
    for arguments, name in (
        ((0, 7), "input_size"),
        ((I, 0), "hidden_size"),
        ((I, 7, "default", "relu", 0), "backbone_units"),
        ((I, 7, "default", "relu", 1, -1), "backbone_layers"),
    ):
        with pytest.raises(ValueError, match=rf"{name}: expected \d or more, got"):
            CfCCell(*arguments)
    with pytest.raises(ValueError, match="dropout probability"):
        CfCCell(I, 7, backbone_layers=2, backbone_dropout=1.5)
    with pytest.raises(ValueError, match=r"proj_size: .* last layer has 7 neurons but 3 outputs"):
        CfC(I, FullyConnected(7, 3), proj_size=2)
    built = NCP(5, 4, 2, 3, 2, 3, 2)
    built.build(I)
    with pytest.raises(ValueError, match=r"input_size: expected 5, .* got 4"):
        CfC(4, built)
    with pytest.raises(ValueError, match=r"wiring: expected a wiring that is built, or input_size"):
        WiredCfCCell(None, Wiring(4))
    with pytest.raises(TypeError, match=r"wiring: expected an ncps.wirings.Wiring, got int"):
        WiredCfCCell(I, 4)


def test_bad_masks() -> None:
    with pytest.raises(ValueError, match=r"sparsity_mask: expected shape \[K, N\] = \[12, 7\]"):
        CfCCell(I, 7, backbone_layers=0, sparsity_mask=np.ones((7, 12)))
    with pytest.raises(ValueError, match=r"sparsity_mask: expected 0 or 1 everywhere, got 0.5"):
        CfCCell(I, 7, backbone_layers=0, sparsity_mask=np.full((12, 7), 0.5))
    layer, x = make(), torch.randn(B, T, I).double()
    state = {name: value.clone() for name, value in layer.state_dict().items()}
    state["rnn_cell.layer_1.sparsity_mask"][2, 3] = 0.25
    with pytest.raises(ValueError, match=r"sparsity_mask: .* got 0.25 at \[2, 3\]"):
        layer.load_state_dict(state)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"sparsity_mask: .* got 0.25 at \[2, 3\]"):
            layer(x)
    with torch.no_grad():
        layer.rnn_cell.layer_1.sparsity_mask[2, 3] = 1
    layer(x)
