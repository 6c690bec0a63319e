"""How CfC and its cells may be called: time steps, lengths, packed sequences, dropout, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ncps.wirings import NCP, AutoNCP, FullyConnected, Wiring
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence

from fastltc import CfC, CfCCell, WiredCfCCell, reference

B, T, I, N = 3, 4, 5, 19  # noqa: E741
KINDS = ("wired", "plain")


def make(kind: str = "wired", **options: Any) -> CfC:
    units = AutoNCP(N, 2) if kind == "wired" else N
    return CfC(I, units, **options).double()


def by_reference(
    layer: CfC, x: Tensor, timespans: Tensor, hx: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Run the reference with [B, T] or [B, T, N] time steps on [B, T, I] data."""
    cell = layer.rnn_cell
    cells = cell._layers if layer.wired_mode else [cell]
    parameters = [p for c in cells for p in c._operator_parameters(c._find_parts())]
    return reference.cfc(
        *(x, hx, timespans),
        parameters=parameters,
        masks=[c.sparsity_mask for c in cells] if layer.wired_mode else [],
        layer_sizes=[c.hidden_size for c in cells],
        backbone_layers=0 if layer.wired_mode else cell.backbone_layers,
        mode=cells[0].mode,
    )


def check(layer: CfC, x: Tensor, given: Any, meaning: Tensor) -> None:
    output, hn = layer(x, timespans=given)
    if layer.batch_first:
        expected, expected_hn = by_reference(layer, x, meaning)
    else:
        expected, expected_hn = by_reference(layer, x.transpose(0, 1), meaning)
        expected = expected.transpose(0, 1)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(hn, expected_hn, rtol=0, atol=1e-12)


SHAPES = {  # given, as [B, T] or [B, T, N]
    "(B, T)": lambda t: (t[..., 0], t[..., 0]),
    "(B, T, 1)": lambda t: (t[..., :1], t[..., 0]),
    "(B, T, N)": lambda t: (t, t),
    "(1, T)": lambda t: (t[:1, :, 0], t[:1, :, 0].expand(B, T)),
    "(1, T, 1)": lambda t: (t[:1, :, :1], t[:1, :, 0].expand(B, T)),
    "(1, T, N)": lambda t: (t[:1], t[:1].expand(B, T, N)),
    "no axis": lambda t: (t[0, 0, 0], t[0, 0, 0].expand(B, T)),
    "a float": lambda t: (t[0, 0, 0].item(), t[0, 0, 0].expand(B, T)),
    "an int": lambda t: (2, torch.full((B, T), 2.0).double()),
    "a numpy number": lambda t: (np.float64(0.25), torch.full((B, T), 0.25).double()),
    "a float of one": lambda t: (1.0, torch.ones(B, T).double()),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_shapes_of_time_steps(kind: str, batch_first: bool, shape: str) -> None:
    layer = make(kind, batch_first=batch_first)
    x = torch.randn(*((B, T) if batch_first else (T, B)), I).double()
    given, meaning = SHAPES[shape](torch.rand(B, T, N).double() * 2)
    if not batch_first and isinstance(given, Tensor) and given.dim() > 1:
        given = given.transpose(0, 1)
    check(layer, x, given, meaning)


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_of_time_steps_of_one_sequence(kind: str) -> None:
    layer = make(kind)
    x, t = torch.randn(T, I).double(), torch.rand(T, N).double()
    for given, meaning in (
        (t[:, 0], t[None, :, 0]),
        (t[:, :1], t[None, :, 0]),
        (t, t[None]),
        (t[0, 0], t[0, 0].expand(1, T)),
        (0.5, torch.full((1, T), 0.5).double()),
    ):
        output, hn = layer(x, timespans=given)
        expected, expected_hn = by_reference(layer, x[None], meaning)
        torch.testing.assert_close(output, expected[0], rtol=0, atol=1e-12)
        torch.testing.assert_close(hn, expected_hn[0], rtol=0, atol=1e-12)


def test_as_many_samples_as_neurons_still_means_samples() -> None:
    # ncps reads (B, T) as one time step per neuron here, without a word.
    for units in (FullyConnected(6, 6), 6):
        layer = CfC(I, units).double()
        x, timespans = torch.randn(6, T, I).double(), torch.rand(6, T).double()
        check(layer, x, timespans, timespans)


@pytest.mark.parametrize("shape", ["(B,)", "(B, 1)", "(B, N)", "(1, N)", "(1,)", "no axis"])
@pytest.mark.parametrize("kind", KINDS)
def test_time_step_of_a_cell(kind: str, shape: str) -> None:
    cell = make(kind).rnn_cell
    t = torch.rand(B, N).double()
    given, meaning = {
        "(B,)": (t[:, 0], t[:, :1].expand(B, N)),
        "(B, 1)": (t[:, :1], t[:, :1].expand(B, N)),
        "(B, N)": (t, t),
        "(1, N)": (t[:1], t[:1].expand(B, N)),
        "(1,)": (t[0, :1], t[:1, :1].expand(B, N)),
        "no axis": (t[0, 0], t[:1, :1].expand(B, N)),
    }[shape]
    x, h = torch.randn(B, I).double(), torch.randn(B, N).double()
    output, state = cell(x, h, given)
    expected, expected_state = by_reference(make_like(kind, cell), x[:, None], meaning[:, None], h)
    torch.testing.assert_close(state, expected_state, rtol=0, atol=1e-12)
    torch.testing.assert_close(output, expected[:, 0], rtol=0, atol=1e-12)


def make_like(kind: str, cell: Any) -> CfC:
    layer = make(kind)
    layer.rnn_cell = cell
    return layer


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_the_time_steps_that_were_given(kind: str, shape: str) -> None:
    layer, x = make(kind), torch.randn(B, T, I).double()
    leaf = torch.rand(B, T, N).double().requires_grad_()
    given, meaning = SHAPES[shape](leaf)
    if not isinstance(given, Tensor):
        assert layer(x, timespans=given)[0].requires_grad
        return
    (actual,) = torch.autograd.grad(layer(x, timespans=given)[0].square().sum(), leaf)
    given, meaning = SHAPES[shape](leaf)
    (expected,) = torch.autograd.grad(by_reference(layer, x, meaning)[0].square().sum(), leaf)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-11)


def test_mixed_memory_takes_the_same_shapes() -> None:
    layer, x = make(mixed_memory=True), torch.randn(B, T, I).double()
    t = torch.rand(B, T, N).double()
    for shape in SHAPES.values():
        given, meaning = shape(t)
        actual, expected = layer(x, timespans=given)[0], layer(x, timespans=meaning)[0]
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mixed_memory", [True, False])
def test_a_time_step_of_zero_is_that_of_ncps(mixed_memory: bool) -> None:
    layer, x = make(mixed_memory=mixed_memory), torch.randn(B, T, I).double()
    outputs = [
        layer(x, timespans=zero)[0]
        for zero in (0, 0.0, torch.zeros(B, T), torch.zeros(B, T, N), torch.tensor(0.0))
    ]
    assert all(torch.equal(output, outputs[0]) for output in outputs)
    if not mixed_memory:
        check(layer, x, 0, torch.zeros(B, T).double())


BAD_SHAPES = [(T,), (B,), (B, T + 1), (T, B), (B, 1), (2, T), (B, T, 2), (B, T, N, 1), (B, N)]


@pytest.mark.parametrize("mixed_memory", [True, False])
@pytest.mark.parametrize("shape", BAD_SHAPES, ids=str)
def test_other_shapes_of_time_steps_are_refused(shape: tuple[int, ...], mixed_memory: bool) -> None:
    layer = make(mixed_memory=mixed_memory)
    message = r"timespans: expected .* \(B, T, N\) with B = 3 \(or 1\), T = 4, N = 19, got shape"
    with pytest.raises(ValueError, match=message):
        layer(torch.randn(B, T, I).double(), timespans=torch.ones(shape))


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf"), -1e-30])
@pytest.mark.parametrize("mixed_memory", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_bad_time_steps_are_refused(kind: str, mixed_memory: bool, bad: float) -> None:
    layer, x = make(kind, mixed_memory=mixed_memory), torch.randn(B, T, I).double()
    one_bad = torch.ones(B, T).double()
    one_bad[1, 2] = bad
    for timespans in (bad, torch.tensor(bad).double(), one_bad, one_bad[..., None]):
        with pytest.raises(ValueError, match=r"timespans: .*0 or more, got (-|nan|inf)"):
            layer(x, timespans=timespans)
    with pytest.raises(ValueError, match=r"got .* at \[1, 2\] \(1 of 12 are not\)"):
        layer(x, timespans=one_bad)
    name = "timespans" if kind == "wired" else "ts"
    for step in (bad, torch.tensor(bad).double(), torch.full((B,), bad).double()):
        with pytest.raises(ValueError, match=rf"^{name}: expected .* got (-|nan|inf)"):
            layer.rnn_cell(x[:, 0], torch.zeros(B, N).double(), step)


LENGTHS = [4, 0, 2]


@pytest.mark.parametrize("mixed_memory", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("proj_size", [None, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_each_sample_ends_at_its_length(
    kind: str, proj_size: int | None, batch_first: bool, mixed_memory: bool
) -> None:
    options = {"batch_first": batch_first, "mixed_memory": mixed_memory, "proj_size": proj_size}
    layer = make(kind, **options)
    last = make(kind, return_sequences=False, **options)
    last.load_state_dict(layer.state_dict())
    x, timespans = torch.randn(B, T, I).double(), torch.rand(B, T).double()
    hx: Any = torch.randn(B, N).double()
    hx = (hx, torch.randn(B, N).double()) if mixed_memory else hx
    for b, length in enumerate(LENGTHS):
        x[b, length:] = torch.nan
        timespans[b, length:] = torch.nan
    order = (lambda t: t) if batch_first else (lambda t: t.transpose(0, 1))
    output, hn = layer(order(x), hx, order(timespans), lengths=LENGTHS)
    last_output, last_hn = last(order(x), hx, order(timespans), torch.tensor(LENGTHS))
    (output.sum() + last_output.sum()).backward()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters() if p.requires_grad)
    for b, length in enumerate(LENGTHS):
        state = tuple(h[b] for h in hx) if mixed_memory else hx[b]
        alone, alone_hn = layer(x[b, :length], state, timespans[b, :length])
        torch.testing.assert_close(order(output)[b, :length], alone, rtol=0, atol=1e-12)
        assert (order(output)[b, length:] == 0).all()
        for h, last_h, expected in zip(
            hn if mixed_memory else [hn],
            last_hn if mixed_memory else [last_hn],
            alone_hn if mixed_memory else [alone_hn],
            strict=True,
        ):
            torch.testing.assert_close(h[b], expected, rtol=0, atol=1e-12)
            torch.testing.assert_close(last_h[b], expected, rtol=0, atol=1e-12)
        alone, _ = last(x[b, :length], state, timespans[b, :length])
        torch.testing.assert_close(last_output[b], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("enforce_sorted", [True, False])
@pytest.mark.parametrize("mixed_memory", [True, False])
@pytest.mark.parametrize("proj_size", [None, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_packed_sequences(
    kind: str, proj_size: int | None, mixed_memory: bool, enforce_sorted: bool
) -> None:
    layer = make(kind, mixed_memory=mixed_memory, proj_size=proj_size)
    lengths = [6, 3, 1] if enforce_sorted else [3, 6, 1]
    sequences = [torch.randn(length, I).double() for length in lengths]
    steps = [torch.rand(length, N).double() for length in lengths]
    packed = pack_sequence(sequences, enforce_sorted=enforce_sorted)
    output, hn = layer(packed, None, pack_sequence(steps, enforce_sorted=enforce_sorted))
    unpacked, out_lengths = pad_packed_sequence(output, batch_first=True)
    assert out_lengths.tolist() == lengths
    for b, (sequence, step) in enumerate(zip(sequences, steps, strict=True)):
        alone, alone_hn = layer(sequence, timespans=step)
        torch.testing.assert_close(unpacked[b, : lengths[b]], alone, rtol=0, atol=1e-12)
        if not mixed_memory:
            torch.testing.assert_close(hn[b], alone_hn, rtol=0, atol=1e-12)


def test_gradients_through_packed_sequences_are_those_through_lengths() -> None:
    layer = make(proj_size=3)
    x, h0 = torch.randn(B, T, I).double(), torch.randn(B, N).double()
    leaves = [x.requires_grad_(), h0.requires_grad_()]
    leaves += [p for p in layer.parameters() if p.requires_grad]
    lengths = [4, 1, 2]
    weight, weight_h = torch.randn(B, T, 3).double(), torch.randn(B, N).double()

    def grads(output: Tensor, hn: Tensor) -> tuple[Tensor, ...]:
        valid = (torch.arange(T) < torch.tensor(lengths)[:, None])[..., None]
        loss = (output * weight * valid).sum() + (hn * weight_h).sum()
        return torch.autograd.grad(loss, leaves)

    expected = grads(*layer(x, h0, lengths=lengths))
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    output, hn = layer(packed, h0)
    actual = grads(pad_packed_sequence(output, batch_first=True)[0], hn)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mixed_memory", [True, False])
@pytest.mark.parametrize("return_sequences", [True, False])
@pytest.mark.parametrize("proj_size", [None, 3])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("batch", "time"), [(0, T), (B, 0), (0, 0)])
def test_an_empty_batch_and_an_empty_sequence(
    batch: int,
    time: int,
    kind: str,
    proj_size: int | None,
    return_sequences: bool,
    mixed_memory: bool,
) -> None:
    layer = make(
        kind, return_sequences=return_sequences, proj_size=proj_size, mixed_memory=mixed_memory
    )
    outputs = proj_size or (2 if kind == "wired" else N)
    x = torch.randn(batch, time, I).double().requires_grad_()
    h = torch.randn(batch, N).double()
    hx: Any = (h, h) if mixed_memory else h
    for timespans in (None, 0.5, torch.rand(batch, time)):
        output, hn = layer(x, hx, timespans, lengths=[time] * batch)
        assert output.shape == ((batch, time, outputs) if return_sequences else (batch, outputs))
        hn = hn[0] if mixed_memory else hn
        assert torch.equal(hn, h)
        (output.sum() + hn.sum()).backward()
        assert x.grad.shape == x.shape
    if not return_sequences and proj_size is None:
        assert torch.equal(output, h[:, -outputs:])


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
