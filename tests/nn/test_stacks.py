"""Layers on top of each other and in both directions, held against the layers by themselves."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from ncps.wirings import AutoNCP
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import fastltc
from fastltc import LTC, Bidirectional, CfC, Sequential

B, T, I, N = 4, 6, 3, 9  # noqa: E741

LAYERS: dict[str, Callable[..., Any]] = {
    "LTC": lambda **options: LTC(I, AutoNCP(N, 2), **options),
    "CfC": lambda **options: CfC(I, N, backbone_units=5, **options),
    "mixed": lambda **options: CfC(I, AutoNCP(N, 2), mixed_memory=True, **options),
}


def both(kind: str = "LTC", **options: Any) -> Bidirectional:
    return Bidirectional(LAYERS[kind](**options), LAYERS[kind](**options)).double()


def close(actual: Any, expected: Any) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("return_sequences", [True, False])
@pytest.mark.parametrize("kind", LAYERS)
def test_backwards_each_sample_is_reversed_within_its_length(
    kind: str, return_sequences: bool
) -> None:
    layer = both(kind, return_sequences=return_sequences)
    x, lengths = torch.randn(B, T, I).double(), [T, 0, 1, 4]
    spans = torch.rand(B, T).double()
    x[3, 4:], spans[3, 4:] = torch.nan, torch.nan
    output, (forward_hn, backward_hn) = layer(x, timespans=spans, lengths=lengths)
    there, hn = layer.forward_layer(x, timespans=spans, lengths=lengths)
    close(output[..., : there.shape[-1]], there)
    close(forward_hn, hn)
    for b, length in enumerate(lengths):
        # The time between two observations is the same in both directions.
        back = torch.cat([spans[b, :1], spans[b, 1:length].flip(0)])[:length]
        alone, state = layer.backward_layer(x[b, :length].flip(0)[None], timespans=back[None])
        got = output[b][..., there.shape[-1] :]
        close(
            got[:length] if return_sequences else got,
            alone[0].flip(0) if return_sequences else alone[0],
        )
        if return_sequences:
            assert (got[length:] == 0).all()
        for ours, theirs in zip(
            *(s if kind == "mixed" else (s,) for s in (backward_hn, state)), strict=True
        ):
            close(ours[b], theirs[0])


@pytest.mark.parametrize("shape", ["BT", "BT1", "BTN", "1T", "float", "none"])
@pytest.mark.parametrize("lengths", [None, [6, 0, 3, 5]])
def test_layouts_and_shapes_of_time_steps(shape: str, lengths: list[int] | None) -> None:
    layer = both()
    turned = copy.deepcopy(layer)
    for part in (turned.forward_layer, turned.backward_layer):
        part.batch_first = False
    x = torch.randn(B, T, I).double()
    spans: Any = {
        "BT": torch.rand(B, T),
        "BT1": torch.rand(B, T, 1),
        "BTN": torch.rand(B, T, N),
        "1T": torch.rand(1, T),
        "float": 0.5,
        "none": None,
    }[shape]
    spans = spans.double() if isinstance(spans, Tensor) else spans
    output, hn = layer(x, timespans=spans, lengths=lengths)
    other = spans.transpose(0, 1) if isinstance(spans, Tensor) else spans
    turned_output, turned_hn = turned(x.transpose(0, 1), timespans=other, lengths=lengths)
    close(turned_output.transpose(0, 1), output)
    close(turned_hn, hn)
    for b in range(B):
        one = spans[min(b, len(spans) - 1)] if isinstance(spans, Tensor) else spans
        length = None if lengths is None else lengths[b]
        alone, _ = layer(x[b], timespans=one, lengths=length)
        close(alone, output[b])


@pytest.mark.parametrize("enforce_sorted", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_packed_sequences(enforce_sorted: bool, batch_first: bool) -> None:
    layer = both(batch_first=batch_first)
    lengths = [6, 4, 2, 1] if enforce_sorted else [2, 6, 1, 4]
    x = torch.randn(B, T, I).double()
    spans = torch.rand(B, T).double()
    pack = {"batch_first": True, "enforce_sorted": enforce_sorted}
    packed = pack_padded_sequence(x, torch.tensor(lengths), **pack)
    packed_spans = pack_padded_sequence(spans.unsqueeze(2), torch.tensor(lengths), **pack)
    output, hn = layer(packed, timespans=packed_spans)
    data, _ = pad_packed_sequence(output, batch_first=True)
    plain = copy.deepcopy(layer)
    for part in (plain.forward_layer, plain.backward_layer):
        part.batch_first = True
    expected, expected_hn = plain(x, timespans=spans, lengths=lengths)
    close(data, expected)
    close(hn, expected_hn)


def test_packed_time_steps_are_read_in_the_order_of_the_input() -> None:
    layer = both()
    lengths = torch.tensor([2, 5, 3])
    x, spans = torch.randn(3, 5, I).double(), torch.rand(3, 5).double()
    packed = pack_padded_sequence(x, lengths, True, enforce_sorted=False)
    given = pack_padded_sequence(spans, lengths, True, enforce_sorted=False)
    expected, _ = layer(packed, timespans=given)
    # Without indices they are taken as packed like the input.
    bare = PackedSequence(given.data, given.batch_sizes)
    close(layer(packed, timespans=bare)[0].data, expected.data)
    other = pack_padded_sequence(spans, torch.tensor([5, 5, 5]), True)
    with pytest.raises(ValueError, match="timespans: expected the batch sizes of the input"):
        layer(packed, timespans=other)


def test_gradients_reach_both_directions_and_the_time_steps() -> None:
    layer = both()
    x = torch.randn(2, 3, I).double().requires_grad_()
    spans = torch.rand(2, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, dt: layer(x, timespans=dt, lengths=[3, 2])[0], (x, spans)
    )
    layer(x)[0].sum().backward()
    assert all(p.grad is not None for p in layer.parameters() if p.requires_grad)


def test_what_does_not_fit_a_bidirectional_layer_is_named() -> None:
    layer = LAYERS["LTC"]()
    with pytest.raises(TypeError, match="backward_layer: expected an LTC or CfC layer, got Linear"):
        Bidirectional(layer, nn.Linear(2, 2))
    with pytest.raises(ValueError, match="backward_layer: expected batch_first=True, as forward"):
        Bidirectional(layer, LAYERS["LTC"](batch_first=False))
    with pytest.raises(ValueError, match="backward_layer: expected 3 inputs, as forward_layer has"):
        Bidirectional(layer, LTC(I + 1, N))
    layer = both()
    with pytest.raises(ValueError, match="I = 3 features"):
        layer(torch.zeros(B, T, I + 1).double())
    with pytest.raises(ValueError, match="hx: expected a state for each direction, got 1 of them"):
        layer(torch.zeros(B, T, I).double(), (None,))
    with pytest.raises(ValueError, match=r"timespans: expected a number or a tensor of shape"):
        layer(torch.zeros(B, T, I).double(), timespans=torch.zeros(B, T + 1))
    with pytest.raises(TypeError, match="input: expected a tensor or PackedSequence, got int"):
        layer(3)


def stack() -> Sequential:
    return Sequential(
        nn.Linear(5, I),
        nn.Tanh(),
        both(),
        nn.LayerNorm(4),
        CfC(4, N, mixed_memory=True),
        Sequential(nn.Linear(N, I), LTC(I, AutoNCP(N, 2))),
        nn.Linear(2, 1),
    ).double()


def test_a_stack_does_what_its_modules_do() -> None:
    model = stack()
    x, spans, lengths = torch.randn(B, T, 5).double(), torch.rand(B, T).double(), [6, 0, 3, 5]
    for hx in (None, [None, (torch.rand(B, N).double(), torch.rand(B, N).double()), None]):
        output, states = model(x, hx, timespans=spans, lengths=lengths)
        y, s0 = model[2](model[1](model[0](x)), None, spans, lengths)
        y, s1 = model[4](model[3](y), None if hx is None else hx[1], spans, lengths)
        y, s2 = model[5][1](model[5][0](y), None, spans, lengths)
        close(output, model[6](y))
        close(states[:2], [s0, s1])
        close(states[2], [s2])
    again, _ = model(x, states, timespans=spans, lengths=lengths)
    assert again.shape == output.shape
    assert not torch.equal(again, output)


def test_a_stack_of_packed_sequences() -> None:
    model = stack()
    x, lengths = torch.randn(B, T, 5).double(), [2, 6, 1, 4]
    packed = pack_padded_sequence(x, torch.tensor(lengths), True, enforce_sorted=False)
    output, states = model(packed)
    data, _ = pad_packed_sequence(output, batch_first=True)
    expected, expected_states = model(x, lengths=lengths)
    for b, length in enumerate(lengths):
        close(data[b, :length], expected[b, :length])
    close(states, expected_states)


def test_stacks_are_trained_copied_compiled_and_saved() -> None:
    model = stack()
    x = torch.randn(B, T, 5).double()
    model(x)[0].sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    other = stack()
    other.load_state_dict(model.state_dict())
    close(other(x)[0], model(x)[0])
    close(copy.deepcopy(model)(x)[0], model(x)[0])
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    close(compiled(x)[0], model(x)[0])


def test_an_ncps_stack_is_sped_up_in_place() -> None:
    import ncps.torch

    model = nn.ModuleList([ncps.torch.LTC(I, AutoNCP(N, 2)), ncps.torch.CfC(2, 5)])
    fastltc.accelerate(model)
    stacked = Sequential(*model)
    assert stacked(torch.randn(B, T, I))[0].shape == (B, T, 5)


def test_what_does_not_fit_a_stack_is_named() -> None:
    model = stack()
    with pytest.raises(ValueError, match="hx: expected 3 states, one for each liquid layer, got 1"):
        model(torch.zeros(B, T, 5).double(), [None])
    with pytest.raises(ValueError, match="CfC: expected batch_first=True, as the first liquid"):
        Sequential(LTC(I, N), CfC(N, 5, batch_first=False))(torch.zeros(B, T, I))
    with pytest.raises(TypeError, match="LSTM: expected a module that returns one tensor"):
        Sequential(nn.LSTM(I, N), LTC(N, N))(torch.zeros(B, T, I))
    early = Sequential(LTC(I, N, return_sequences=False), LTC(N, N))
    with pytest.raises(ValueError, match="LTC: expected return_sequences=True, because a liquid"):
        early(torch.zeros(B, T, I))
