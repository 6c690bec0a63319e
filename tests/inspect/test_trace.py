"""What is said of the inside of a layer, against its equation written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ncps.wirings import AutoNCP
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence

import fastltc
from fastltc import LTC, CfC
from fastltc.inspect import (
    draw_states,
    draw_time_constants,
    polarities,
    synaptic_currents,
    trace,
    trace_model,
)
from layers.modules import KINDS, Kind, over_kinds

B, T, I, N = 3, 5, 4, 13  # noqa: E741
LENGTHS = [5, 2, 0]


def make(kind: Kind, **options: Any) -> Any:
    return kind.moved(I, N, **options)


def data(layer: Any) -> tuple[Tensor, Any, Tensor]:
    h = torch.randn(B, N).double()
    hx = (h, torch.randn(B, N).double()) if layer.use_mixed else h
    return torch.randn(B, T, I).double(), hx, torch.rand(B, T).double() + 0.1


@over_kinds()
def test_states_are_those_of_the_layer(kind: Kind) -> None:
    layer = make(kind)
    x, hx, timespans = data(layer)
    behind = torch.arange(T) >= torch.tensor(LENGTHS)[:, None]
    x[behind], timespans[behind] = torch.nan, torch.nan
    seen = trace(layer, x, hx, timespans, LENGTHS)
    states = layer(x, hx, timespans, LENGTHS, return_states=True)[2]
    torch.testing.assert_close(seen.states, states, rtol=0, atol=0)
    parts = [seen.time_constants, seen.times, seen.gates]
    if seen.currents is not None:
        parts += vars(seen.currents).values()
    for part in parts:
        if part is not None:
            assert part.isfinite().all()
    assert (seen.time_constants[~behind] > 0).all()
    assert (seen.time_constants[behind] == 0).all()
    assert len(set(seen.neurons)) == N


@pytest.mark.parametrize("to_zero", [False, True])
@over_kinds()
def test_a_reset_begins_a_trace_anew(kind: Kind, to_zero: bool) -> None:
    layer = make(kind)
    x, hx, timespans = data(layer)
    resets = torch.zeros(B, T, dtype=torch.bool)
    resets[:, 2] = True
    whole = trace(layer, x, hx, timespans, None, resets, reset_to_zero=to_zero)
    for part in (slice(0, 2), slice(2, T)):
        given = None if to_zero and part.start else hx
        alone = trace(layer, x[:, part], given, timespans[:, part])
        for name in ("states", "time_constants", "gates"):
            actual, expected = getattr(whole, name), getattr(alone, name)
            if expected is not None:
                torch.testing.assert_close(actual[:, part], expected, rtol=1e-10, atol=1e-12)


@over_kinds("LTC", "LTC, mixed")
def test_an_ltc_synapse_by_synapse(kind: Kind) -> None:
    layer = make(kind)
    x, hx, timespans = data(layer)
    seen = trace(layer, x, hx, timespans)
    assert seen.currents is not None
    cell, pos = layer.rnn_cell, torch.nn.functional.softplus
    b, t = 1, 3
    v, u = seen.states[b, t], x[b, t] * cell.input_w + cell.input_b
    for j in range(N):
        conductance = pos(cell.gleak[j]) + cell._epsilon
        sums = {"recurrent": x.new_zeros(()), "sensory": x.new_zeros(())}
        for of, signals, prefix in (("recurrent", v, ""), ("sensory", u, "sensory_")):
            for i, signal in enumerate(signals):
                if getattr(cell, f"{prefix}sparsity_mask")[i, j] == 0:
                    continue
                w, sigma, mu, erev = (
                    getattr(cell, prefix + name)[i, j] for name in ("w", "sigma", "mu", "erev")
                )
                g = pos(w) / (1 + torch.exp(-sigma * (signal - mu)))
                conductance = conductance + g
                sums[of] = sums[of] + g * (erev - v[j])
        expected = pos(cell.cm[j]) / conductance
        torch.testing.assert_close(seen.time_constants[b, t, j], expected, rtol=0, atol=1e-12)
        for of, current in sums.items():
            found = getattr(seen.currents, of)[b, t, j]
            torch.testing.assert_close(found, current, rtol=0, atol=1e-12)
    one = None if hx is None else tuple(h[b] for h in hx) if layer.use_mixed else hx[b]
    each = synaptic_currents(layer, x[b], one, timespans[b])
    total = seen.currents.recurrent[b] + seen.currents.sensory[b]
    torch.testing.assert_close(each.sum(1), total, rtol=0, atol=1e-12)
    masks = torch.cat([cell.sensory_sparsity_mask, cell.sparsity_mask])
    assert (each[:, masks == 0] == 0).all()
    assert (each[:, masks == 1] != 0).all()


def test_the_currents_move_the_potential() -> None:
    layer = make(KINDS["LTC"])
    x, hx, _ = data(layer)
    x, dt = x[:, :1].expand(B, 2, I), 1e-7
    seen = trace(layer, x, hx, dt)
    assert seen.currents is not None
    moved = (seen.states[:, 1] - seen.states[:, 0]) / dt
    into = seen.currents.leak + seen.currents.recurrent + seen.currents.sensory
    expected = into[:, 0] / torch.nn.functional.softplus(layer.rnn_cell.cm)
    torch.testing.assert_close(moved, expected, rtol=1e-4, atol=1e-4)


@over_kinds("CfC, wired", "CfC, mixed", "CfC, plain")
def test_the_gates_of_a_cfc_make_its_states(kind: Kind) -> None:
    layer = make(kind)
    x, hx, timespans = data(layer)
    seen = trace(layer, x, hx, timespans)
    assert seen.gates is not None
    cells = layer.rnn_cell._layers if layer.wired_mode else [layer.rnn_cell]
    state = hx
    for t in range(T):
        before = state[0] if layer.use_mixed else state
        if layer.use_mixed:
            before, _ = layer.lstm(x[:, t], state)
        signal, first = x[:, t], 0
        for cell in cells:
            own = slice(first, first + cell.hidden_size)
            first = own.stop
            z = torch.cat([signal, before[:, own]], 1)
            z = z if cell.backbone is None else cell.backbone(z)
            f1, f2 = (
                torch.tanh(
                    z @ (head.weight * (1 if cell.sparsity_mask is None else cell.sparsity_mask)).T
                    + head.bias
                )
                for head in (cell.ff1, cell.ff2)
            )
            gate = seen.gates[:, t, own]
            signal = f1 * (1 - gate) + f2 * gate
            torch.testing.assert_close(signal, seen.states[:, t, own], rtol=0, atol=1e-12)
            rate = (torch.logit(gate) - cell.time_b(z)) / timespans[:, t, None]
            torch.testing.assert_close(seen.time_constants[:, t, own], 1 / rate.abs())
        _, state = layer(x[:, t : t + 1], state, timespans[:, t : t + 1])


@over_kinds("CfC, pure", "CfC, plain pure")
def test_the_time_constant_of_the_closed_form(kind: Kind) -> None:
    layer = make(kind)
    x, hx, timespans = data(layer)
    seen = trace(layer, x, hx, timespans)
    assert seen.gates is None
    cells = layer.rnn_cell._layers if layer.wired_mode else [layer.rnn_cell]
    w_tau, A = (torch.cat([getattr(c, name) for c in cells], 1) for name in ("w_tau", "A"))
    f = 1 / seen.time_constants - w_tau.abs()
    decayed = torch.exp(-timespans.unsqueeze(2) / seen.time_constants)
    either = torch.stack([A - A * decayed * s * f - seen.states for s in (1, -1)])
    assert either.abs().min(0).values.max() < 1e-12


def test_layouts() -> None:
    layer, turned = make(KINDS["CfC, wired"]), make(KINDS["CfC, wired"], batch_first=False)
    turned.load_state_dict(layer.state_dict())
    x, hx, timespans = data(layer)
    expected = trace(layer, x, hx, timespans)
    other = trace(turned, x.transpose(0, 1), hx, timespans.T)
    alone = trace(layer, x[1], hx[1], timespans[1])
    for name in ("times", "states", "time_constants", "gates"):
        torch.testing.assert_close(getattr(other, name), getattr(expected, name))
        torch.testing.assert_close(getattr(alone, name), getattr(expected, name)[1:2])
    per_neuron = timespans[..., None].expand(B, T, N)
    torch.testing.assert_close(trace(layer, x, hx, per_neuron).gates, expected.gates)


def test_names_follow_the_order_of_the_state() -> None:
    wiring = AutoNCP(N, 2)
    assert trace(LTC(I, wiring), torch.zeros(T, I)).neurons[:3] == (
        "motor 0",
        "motor 1",
        "command 0",
    )
    assert trace(CfC(I, wiring), torch.zeros(T, I)).neurons[-2:] == ("motor 0", "motor 1")
    assert trace(CfC(I, 2), torch.zeros(T, I)).neurons == ("neuron 0", "neuron 1")


def test_they_have_gradients() -> None:
    layer = make(KINDS["LTC"])
    x, hx, timespans = data(layer)
    trace(layer, x, hx, timespans).time_constants.sum().backward()
    for name in ("cm", "gleak", "w", "sensory_mu"):
        assert getattr(layer.rnn_cell, name).grad.abs().sum() > 0, name


def test_every_layer_of_a_model() -> None:
    first, second = make(KINDS["LTC"]), CfC(2, 6).double()
    model = fastltc.Sequential(first, torch.nn.Tanh(), second)
    x, timespans = torch.randn(B, T, I).double(), torch.rand(B, T).double()
    seen = trace_model(model, x, timespans=timespans, lengths=LENGTHS)
    assert list(seen) == ["0", "2"]
    torch.testing.assert_close(
        seen["0"].time_constants, trace(first, x, None, timespans, LENGTHS).time_constants
    )
    y = torch.tanh(first(x, None, timespans, LENGTHS)[0])
    torch.testing.assert_close(seen["2"].gates, trace(second, y, None, timespans, LENGTHS).gates)
    assert not first._forward_pre_hooks


def test_polarities_that_training_has_turned() -> None:
    layer = LTC(I, AutoNCP(N, 2))
    found = polarities(layer)
    wiring = layer._wiring
    assert found.wired[I:].tolist() == wiring.adjacency_matrix.tolist()
    assert torch.equal(found.wired, found.trained)
    i, j = torch.nonzero(found.wired[I:])[3].tolist()
    with torch.no_grad():
        layer.rnn_cell.erev[i, j] *= -0.5
        layer.rnn_cell.erev[layer.rnn_cell.sparsity_mask == 0] = 3.0
    assert torch.nonzero(polarities(layer).flipped).tolist() == [[I + i, j]]


def test_pictures_of_a_sample() -> None:
    seen = trace(make(KINDS["LTC"]), torch.randn(B, T, I).double(), lengths=LENGTHS)
    full, short = (draw_states(seen, sample=k) for k in (0, 1))
    assert full[1:4] == draw_time_constants(seen, sample=2)[1:4] == b"PNG"
    assert full != short
    with pytest.raises(IndexError, match="sample: expected one of 3, got 3"):
        draw_states(seen, sample=3)


def test_bad_arguments() -> None:
    layer = CfC(I, 3)
    with pytest.raises(TypeError, match="layer: expected an LTC or CfC layer, got Linear"):
        trace(torch.nn.Linear(2, 2), torch.zeros(T, I))
    with pytest.raises(TypeError, match=r"input: .*PackedSequence; pass lengths"):
        trace(layer, pack_sequence([torch.zeros(T, I)]))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"layer: expected an LTC layer.*got CfC"):
        polarities(layer)
    with pytest.raises(TypeError, match=r"layer: expected an LTC layer.*got CfC"):
        synaptic_currents(layer, torch.zeros(T, I))
    with pytest.raises(ValueError, match=r"input: expected one sequence.* got \[2, 5, 4\]"):
        synaptic_currents(LTC(I, 3), torch.zeros(2, T, I))
