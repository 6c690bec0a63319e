"""The states of all neurons, beside the outputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import fastltc
from fastltc import Bidirectional, Sequential
from layers import assert_all_close
from layers.modules import KINDS, Kind, over_kinds
from ncps_twins import WIRINGS, twins

B, T, I, N = 5, 6, 3, 19  # noqa: E741
LENGTHS = [4, 6, 0, 6, 2]


def make(kind: Kind, **options: Any) -> Any:
    layer = kind(I, N, **options).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return layer


def random_state(layer: Any) -> Any:
    h = torch.randn(B, N).double()
    return (h, torch.randn(B, N).double()) if layer.use_mixed else h


def stepped(layer: Any, x: Tensor, hx: Any, timespans: Tensor, lengths: list[int]) -> Tensor:
    """Return the states of a layer that is called for one step after the other."""
    states = []
    for t in range(x.shape[1]):
        valid = torch.tensor([int(t < length) for length in lengths])
        hx = layer(x[:, t : t + 1], hx, timespans[:, t : t + 1], valid)[1]
        h = hx[0] if layer.use_mixed else hx
        states.append(torch.where(valid[:, None] == 1, h, 0))
    return torch.stack(states, 1)


def gradients(layer: Any, results: list[Tensor], leaves: list[Tensor]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    total = sum(
        (y * torch.randn(y.shape, generator=generator, dtype=y.dtype)).sum() for y in results
    )
    named = {n: p for n, p in layer.named_parameters() if p.requires_grad}
    named |= {f"argument {i}": leaf for i, leaf in enumerate(leaves)}
    grads = torch.autograd.grad(
        total, list(named.values()), allow_unused=True, materialize_grads=True
    )
    return dict(zip(named, grads, strict=True))


@over_kinds()
def test_they_are_those_of_single_steps(kind: Kind) -> None:
    layer = make(kind)
    hx = random_state(layer)
    x = torch.randn(B, T, I, dtype=torch.float64, requires_grad=True)
    timespans = torch.rand(B, T, dtype=torch.float64, requires_grad=True)
    output, hn, states = layer(x, hx, timespans, LENGTHS, return_states=True)
    usual, usual_hn = layer(x, hx, timespans, LENGTHS)
    expected = stepped(layer, x, hx, timespans, LENGTHS)
    h, usual_h = (state[0] if layer.use_mixed else state for state in (hn, usual_hn))
    found = {"output": output, "hn": h, "states": states}
    assert_all_close(found, {"output": usual, "hn": usual_h, "states": expected})
    assert_all_close(
        gradients(layer, [output, h, states], [x, timespans]),
        gradients(layer, [usual, usual_h, expected], [x, timespans]),
    )


@pytest.mark.parametrize("wiring", WIRINGS)
def test_they_are_those_of_the_cell_of_ncps_for_ltc(wiring: str) -> None:
    theirs, ours = twins(WIRINGS[wiring], I)
    check_against_the_cell_of_ncps(theirs, ours)


@pytest.mark.parametrize("mode", ["default", "pure", "no_gate"])
@pytest.mark.parametrize("units", [WIRINGS["ncp"], 7], ids=["wired", "plain"])
def test_they_are_those_of_the_cell_of_ncps_for_cfc(units: Any, mode: str) -> None:
    theirs, ours = twins(units, I, "CfC", mode=mode)
    check_against_the_cell_of_ncps(theirs, ours)


def check_against_the_cell_of_ncps(theirs: Any, ours: Any) -> None:
    x = torch.randn(B, T, I, dtype=torch.float64, requires_grad=True)
    timespans = torch.rand(B, T, 1, dtype=torch.float64) + 0.1
    h = torch.zeros(B, ours.state_size, dtype=torch.float64)
    outputs, states = [], []
    assert type(theirs).__module__.startswith("ncps")
    for t in range(T):
        y, h = theirs.rnn_cell(x[:, t], h, timespans[:, t])
        outputs.append(y)
        states.append(h)
    expected = [torch.stack(outputs, 1), torch.stack(states, 1)]
    output, _, found = ours(x, timespans=timespans.squeeze(2), return_states=True)
    assert_all_close(
        {"output": output, "states": found},
        dict(zip(("output", "states"), expected, strict=True)),
    )
    assert_all_close(gradients(ours, [output, found], [x]), gradients(theirs, expected, [x]), 1e-10)


@over_kinds()
def test_the_way_step_by_step_gives_the_same(kind: Kind) -> None:
    layer, x = make(kind), torch.randn(B, T, I).double()
    expected = layer(x, lengths=LENGTHS, return_states=True)
    part = layer.lstm if layer.use_mixed else layer.rnn_cell
    hooked = [m for m in part.modules() if m is not part and not list(m.children())]
    for module in hooked:
        module.register_forward_hook(lambda *_: None)
    if hooked and (layer.use_mixed or not isinstance(layer, fastltc.LTC)):
        with pytest.warns(UserWarning, match="step by step"):
            found = layer(x, lengths=LENGTHS, return_states=True)
    else:
        found = layer(x, lengths=LENGTHS, return_states=True)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


class OwnCell(fastltc.LTCCell):
    """A cell whose outputs are no function of its states alone."""

    def forward(self, inputs: Any, states: Any, elapsed_time: Any = 1.0) -> Any:
        y, h = super().forward(inputs, states, elapsed_time)
        return y + inputs.sum(1, keepdim=True), h


def test_a_cell_of_ones_own_gives_its_states() -> None:
    layer = make(KINDS["LTC"])
    x = torch.randn(B, T, I).double()
    usual, hn, expected = layer(x, lengths=LENGTHS, return_states=True)
    layer.rnn_cell.__class__ = OwnCell
    with pytest.warns(UserWarning, match="step by step"):
        output, own_hn, states = layer(x, lengths=LENGTHS, return_states=True)
    valid = torch.arange(T) < torch.tensor(LENGTHS)[:, None]
    there = torch.where(valid[..., None], usual + x.sum(2, keepdim=True), 0)
    torch.testing.assert_close((output, own_hn, states), (there, hn, expected))


@over_kinds("LTC", "LTC, mixed", "CfC, wired", "CfC, plain")
def test_without_sequences_of_outputs_there_are_all_states(kind: Kind) -> None:
    layer = make(kind)
    last = make(kind, return_sequences=False)
    last.load_state_dict(layer.state_dict())
    x = torch.randn(B, T, I).double()
    _, hn, states = layer(x, lengths=LENGTHS, return_states=True)
    output, last_hn, last_states = last(x, lengths=LENGTHS, return_states=True)
    expected, _ = last(x, lengths=LENGTHS)
    torch.testing.assert_close((output, last_hn, last_states), (expected, hn, states))


@over_kinds("LTC", "LTC, mixed", "CfC, wired", "CfC, plain")
def test_layouts(kind: Kind) -> None:
    layer, turned = make(kind), make(kind, batch_first=False)
    turned.load_state_dict(layer.state_dict())
    x, timespans = torch.randn(B, T, I).double(), torch.rand(B, T).double()
    lengths = [max(1, length) for length in LENGTHS]
    expected = layer(x, None, timespans, lengths, return_states=True)[2]
    states = turned(x.transpose(0, 1), None, timespans.T, lengths, return_states=True)[2]
    torch.testing.assert_close(states.transpose(0, 1), expected)
    alone = layer(x[0, :4], None, timespans[0, :4], return_states=True)[2]
    torch.testing.assert_close(alone, expected[0, :4])
    packed = pack_padded_sequence(x, torch.tensor(lengths), True, enforce_sorted=False)
    output, _, states = layer(packed, None, timespans, return_states=True)
    assert isinstance(states, PackedSequence)
    unpacked, steps = pad_packed_sequence(states, True)
    assert steps.tolist() == lengths
    torch.testing.assert_close(unpacked, expected)
    assert torch.equal(states.batch_sizes, output.batch_sizes)
    parts = [x[b, :length] for b, length in enumerate(lengths)]
    nested = torch.nested.nested_tensor(parts, layout=torch.jagged)
    states = layer(nested, None, timespans, return_states=True)[2]
    for b, length in enumerate(lengths):
        torch.testing.assert_close(states.unbind()[b], expected[b, :length])
    empty = layer(x[:, :0], return_states=True)
    assert [empty[0].shape[1], empty[2].shape] == [0, (B, 0, N)]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("batch_first", [True, False])
def test_both_directions(batch_first: bool, packed: bool) -> None:
    there, back = (make(KINDS[k], batch_first=batch_first) for k in ("LTC", "CfC, wired"))
    x, timespans = torch.randn(B, T, I).double(), torch.rand(B, T).double()
    lengths = [4, 6, 1, 6, 2]
    order = (lambda t: t) if batch_first else (lambda t: t.transpose(0, 1))
    given: Any = order(x)
    if packed:
        given = pack_padded_sequence(given, torch.tensor(lengths), batch_first, False)
    output, hn, states = Bidirectional(there, back)(
        given, None, order(timespans), None if packed else lengths, return_states=True
    )
    if packed:
        output, *states = (pad_packed_sequence(p, batch_first)[0] for p in (output, *states))
    usual, usual_hn = Bidirectional(there, back)(order(x), None, order(timespans), lengths)
    torch.testing.assert_close((output, hn), (usual, usual_hn))
    forward, backward = map(order, states)
    for b, length in enumerate(lengths):
        spans = torch.cat([timespans[b, :1], timespans[b, 1:length].flip(0)])
        alone = back(x[b, :length].flip(0), timespans=spans, return_states=True)[2]
        torch.testing.assert_close(backward[b, :length], alone.flip(0))
        assert (backward[b, length:] == 0).all()
    expected = there(order(x), None, order(timespans), lengths, return_states=True)[2]
    torch.testing.assert_close(forward, order(expected))


def test_layers_on_top_of_each_other() -> None:
    first, second = make(KINDS["LTC"]), fastltc.CfC(2, 7).double()
    x = torch.randn(B, T, I).double()
    output, hn, (below, above) = Sequential(first, second)(x, return_states=True)
    y, _, expected = first(x, return_states=True)
    torch.testing.assert_close(below, expected)
    torch.testing.assert_close((output, hn[1], above), second(y, return_states=True))


@over_kinds("LTC", "LTC, mixed", "CfC, wired", "CfC, plain")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_rounded_once(kind: Kind, dtype: torch.dtype) -> None:
    layer, x = kind(I, N), torch.randn(B, T, I)
    layer = layer.to(dtype)
    results = layer(x.to(dtype), return_states=True)
    assert {tensor.dtype for tensor in (results[0], results[2])} == {dtype}
    torch.testing.assert_close(results[:2], layer(x.to(dtype)), rtol=0, atol=0)


@over_kinds("LTC", "CfC, wired")
def test_compiled_whole(kind: Kind) -> None:
    layer, x = make(kind), torch.randn(B, T, I).double()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(
        compiled(x, lengths=torch.tensor(LENGTHS), return_states=True),
        layer(x, lengths=LENGTHS, return_states=True),
    )
