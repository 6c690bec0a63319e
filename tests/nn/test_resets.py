"""Resets in the middle of sequences: one call, held against a loop over episodes with ncps."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import ncps.torch
import pytest
import torch
from ncps.wirings import AutoNCP
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import fastltc
from fastltc import LTC, Bidirectional, CfC, ParallelLTC, Sequential
from layers import assert_all_close
from layers.modules import KINDS, Kind, over_kinds
from ncps_twins import flat, twins

B, T, I, N = 5, 9, 4, 13  # noqa: E741


def episodes(resets: Tensor, length: int = T) -> list[slice]:
    """Return the steps of each episode of a sample; before the first step a reset is none."""
    borders = [0, *(t for t in range(1, length) if resets[t]), length]
    return [slice(*pair) for pair in itertools.pairwise(borders)]


def row(hx: Any, b: int) -> Any:
    return tuple(h[b : b + 1] for h in hx) if isinstance(hx, tuple) else hx[b : b + 1]


def by_episodes(
    layer: nn.Module, x: Tensor, hx: Any, resets: Tensor, lengths: list[int] | None = None
) -> tuple[Tensor, Any]:
    """Run each episode as a call of its own, from ``hx`` on."""
    outputs, states = [], []
    for b in range(x.shape[0]):
        length = T if lengths is None else lengths[b]
        parts = [x.new_zeros(1, T, 0)[:, :0]]
        for steps in episodes(resets[b], length):
            y, state = layer(x[b : b + 1, steps], row(hx, b))
            parts.append(y)
        y = torch.cat([part for part in parts if part.shape[2]], 1)
        outputs.append(nn.functional.pad(y, (0, 0, 0, T - y.shape[1])))
        states.append(flat(state))
    return torch.cat(outputs), [torch.cat(part) for part in zip(*states, strict=True)]


def state_of(layer: Any, batch: int = B) -> Any:
    h = torch.randn(batch, layer.state_size).double()
    return (h, torch.randn_like(h)) if layer.use_mixed else h


def close(actual: Any, expected: Any) -> None:
    torch.testing.assert_close(flat(actual), flat(expected), rtol=1e-11, atol=1e-11)


def results_and_gradients(layer: Any, x: Tensor, hx: Any, call: Any) -> dict[str, Tensor]:
    """What call(x, hx) returns, and the gradients of all that it depends on."""
    inputs = [t.clone().requires_grad_() for t in (x, *flat(hx))]
    results = call(inputs[0], tuple(inputs[1:]) if layer.use_mixed else inputs[1])
    named = {f"result {k}": t for k, t in enumerate(flat(results))}
    weights = torch.Generator().manual_seed(1)
    loss = sum((t * torch.randn(t.shape, generator=weights)).sum() for t in named.values())
    learned = {name: p for name, p in layer.named_parameters() if p.requires_grad}
    grads = torch.autograd.grad(loss, [*inputs, *learned.values()], materialize_grads=True)
    names = [f"input {k}" for k in range(len(inputs))] + list(learned)
    return named | {f"grad of {n}": g for n, g in zip(names, grads, strict=True)}


RESETS: dict[str, Any] = {
    "some": lambda: torch.rand(B, T) < 0.3,
    "none": lambda: torch.zeros(B, T, dtype=torch.bool),
    "all": lambda: torch.ones(B, T, dtype=torch.bool),
    "the first step": lambda: torch.arange(T).expand(B, T) == 0,
    "expanded over samples": lambda: (torch.rand(T) < 0.4).expand(B, T),
    "transposed": lambda: (torch.rand(T, B) < 0.4).T,
    "one expanded": lambda: torch.ones((), dtype=torch.bool).expand(B, T),
}


@pytest.mark.parametrize("which", RESETS)
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(
    ("kind", "units"), [("LTC", "wired"), ("CfC", "wired"), ("CfC", N)], ids=str
)
def test_a_rollout_is_its_episodes_in_ncps(kind: str, units: Any, mixed: bool, which: str) -> None:
    made = (lambda: AutoNCP(N, 2)) if units == "wired" else units
    theirs, ours = twins(made, I, kind, mixed_memory=mixed)
    resets, x = RESETS[which](), torch.randn(B, T, I).double()
    hx = state_of(ours)

    expected = results_and_gradients(
        theirs, x, hx, lambda x, hx: by_episodes(theirs, x, hx, resets)
    )
    in_one_call = results_and_gradients(ours, x, hx, lambda x, hx: ours(x, hx, resets=resets))
    assert_all_close(in_one_call, expected)
    with torch.no_grad():  # of few samples other kernels
        for part, got in enumerate(flat(ours(x, hx, resets=resets))):
            close(got, expected[f"result {part}"])


def carried_on(layer: Any, x: Tensor, hx: Any, resets: Tensor) -> tuple[Tensor, Any]:
    """Run step by step, from ``hx`` on, with the states set to zeros where episodes begin."""
    outputs = []
    for t in range(x.shape[1]):
        keep = (~resets[:, t : t + 1]).to(x.dtype)
        hx = tuple(h * keep for h in hx) if isinstance(hx, tuple) else hx * keep
        output, hx = layer(x[:, t : t + 1], hx)
        outputs.append(output)
    return torch.cat(outputs, 1), hx


@pytest.mark.parametrize("which", RESETS)
@over_kinds()
def test_resets_to_zero_carry_a_state_to_the_first(kind: Kind, which: str) -> None:
    layer, resets = kind(I, N).double(), RESETS[which]()
    x, hx = torch.randn(B, T, I).double(), state_of(layer)

    def run() -> dict[str, Tensor]:
        return results_and_gradients(
            layer, x, hx, lambda x, hx: layer(x, hx, resets=resets, reset_to_zero=True)
        )

    expected = results_and_gradients(layer, x, hx, lambda x, hx: carried_on(layer, x, hx, resets))
    assert_all_close(run(), expected)
    with torch.no_grad():
        results = layer(x, hx, resets=resets, reset_to_zero=True)
        for part, got in enumerate(flat(results)):
            close(got, expected[f"result {part}"])
    # Step by step, where the operator cannot run.
    layer.rnn_cell.register_forward_pre_hook(lambda *_: None)
    assert_all_close(run(), expected)


def test_modules_hand_resets_to_zero_on() -> None:
    layers = [CfC(I, N).double(), LTC(N, AutoNCP(N, 2)).double()]
    x, resets = torch.randn(B, T, I).double(), torch.rand(B, T) < 0.3
    lengths = torch.tensor([3, T, 1, 7, T])
    states = [state_of(layer) for layer in layers]
    given = {"resets": resets, "reset_to_zero": True}
    y, first = layers[0](x, states[0], **given)
    expected = layers[1](y, states[1], **given)
    output, hn = Sequential(*layers)(x, states, **given)
    close((output, *hn), (expected[0], first, expected[1]))
    both = Bidirectional(layers[0], CfC(I, N).double())
    output, (there, _) = both(x, (states[0], states[0]), **given)
    close((output[..., :N], there), (y, first))
    # Backwards a reset before a step is one before the step that follows in that order.
    behind = torch.cat([torch.zeros(B, 1, dtype=torch.bool), resets.flip(1)[:, :-1]], 1)
    back, _ = both.backward_layer(x.flip(1), states[0], resets=behind, reset_to_zero=True)
    close(output[..., N:], back.flip(1))
    pack = {"batch_first": True, "enforce_sorted": False}
    packed = layers[0](pack_padded_sequence(x, lengths, **pack), states[0], **given)
    whole = layers[0](x, states[0], lengths=lengths, **given)
    close(packed[0].data, pack_padded_sequence(whole[0], lengths, **pack).data)
    nested = torch.nested.nested_tensor(
        [x[b, :n] for b, n in enumerate(lengths)], layout=torch.jagged
    )
    jagged, _ = layers[0](nested, states[0], **given)
    valid = torch.arange(T) < lengths[:, None]
    close(jagged.values(), whole[0][valid])
    nets = ParallelLTC([LTC(I, AutoNCP(N, 2)).double() for _ in range(3)])
    inputs, hx = torch.randn(3, B, T, I).double(), torch.randn(3, B, N).double()
    output, hn = nets(inputs, hx, **given)
    for k in range(3):
        close((output[k], hn[k]), nets.layer(k)(inputs[k], hx[k], **given))


@over_kinds()
@pytest.mark.parametrize("batch", [1, 3, 37])
def test_no_reset_changes_no_bit(kind: Kind, batch: int) -> None:
    layer, x = kind(I, N), torch.randn(batch, T, I)
    first = torch.arange(T).expand(batch, T) == 0
    h = torch.randn(batch, N)
    hx = (h, torch.randn(batch, N)) if layer.use_mixed else h
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            plain = flat(layer(x, hx))
            for resets in (torch.zeros(batch, T, dtype=torch.bool), first):
                for got, expected in zip(flat(layer(x, hx, resets=resets)), plain, strict=True):
                    assert torch.equal(got, expected)


@over_kinds()
def test_axes_packed_sequences_and_lengths(kind: Kind) -> None:
    layer = kind(I, N).double()
    other = kind(I, N, batch_first=False).double()
    other.load_state_dict(layer.state_dict())
    x, resets, hx = torch.randn(B, T, I).double(), torch.rand(B, T) < 0.4, state_of(layer)
    lengths = [3, T, 1, 7, T]
    behind = torch.arange(T) >= torch.tensor(lengths)[:, None]
    expected = layer(x, hx, lengths=lengths, resets=resets)
    # Behind the lengths there is none.
    close(layer(x, hx, lengths=lengths, resets=resets | behind), expected)
    close(layer(x, hx, lengths=lengths, resets=resets & ~behind), expected)
    looped, states = by_episodes(layer, x, hx, resets, lengths)
    valid = ~behind[:, :, None]
    close(expected[0], torch.where(valid, looped, 0))
    close(expected[1], states if layer.use_mixed else states[0])
    output, hn = other(x.transpose(0, 1), hx, lengths=lengths, resets=resets.T)
    close((output.transpose(0, 1), hn), expected)
    for b in range(B):
        own = tuple(h[b] for h in hx) if isinstance(hx, tuple) else hx[b]
        alone, _ = layer(x[b], own, lengths=lengths[b], resets=resets[b])
        close(alone, expected[0][b])
    pack = {"batch_first": True, "enforce_sorted": False}
    packed = pack_padded_sequence(x, torch.tensor(lengths), **pack)
    packed_resets = pack_padded_sequence(resets, torch.tensor(lengths), **pack)
    wanted = pack_padded_sequence(expected[0], torch.tensor(lengths), **pack)
    for given in (resets, packed_resets):
        output, hn = layer(packed, hx, resets=given)
        close((output.data, hn), (wanted.data, expected[1]))
    output, hn = other(packed, hx, resets=resets.T)
    close((output.data, hn), (wanted.data, expected[1]))


@over_kinds()
def test_the_last_output_alone_and_empty_inputs(kind: Kind) -> None:
    layer, last = kind(I, N).double(), kind(I, N, return_sequences=False).double()
    last.load_state_dict(layer.state_dict())
    x, resets = torch.randn(B, T, I).double(), torch.rand(B, T) < 0.4
    output, hn = layer(x, resets=resets)
    close(last(x, resets=resets), (output[:, -1], hn))
    for batch, time in ((0, T), (B, 0), (0, 0)):
        some = x[:batch, :time].requires_grad_()
        output, hn = layer(some, resets=resets[:batch, :time])
        assert output.shape[:2] == (batch, time)
        sum(t.sum() for t in flat((output, hn))).backward()


def test_step_by_step_it_is_the_same() -> None:
    for name in ("CfC, wired", "CfC, mixed", "CfC, plain"):
        plain = KINDS[name](I, N).double()
        stepped = copy.deepcopy(plain)
        for module in stepped.modules():
            if isinstance(module, nn.Tanh):  # a hook that changes nothing
                module.register_forward_hook(lambda module, args, result: None)
        x, resets, hx = torch.randn(B, T, I).double(), torch.rand(B, T) < 0.4, state_of(plain)
        for lengths in (None, [3, T, 0, 7, T]):
            with pytest.warns(UserWarning, match="step by step"):
                got = copy.deepcopy(stepped)(x, hx, lengths=lengths, resets=resets)
            close(got, plain(x, hx, lengths=lengths, resets=resets))


def test_accelerated_layers_take_them() -> None:
    theirs = ncps.torch.CfC(I, AutoNCP(N, 2)).double()
    model = nn.Sequential(theirs)
    fastltc.accelerate(model)
    x, resets = torch.randn(B, T, I).double(), torch.rand(B, T) < 0.4
    hx = torch.randn(B, N).double()
    output, states = by_episodes(ncps_copy(model[0]), x, hx, resets)
    close(model[0](x, hx, resets=resets), (output, states[0]))


def ncps_copy(layer: Any) -> nn.Module:
    theirs = ncps.torch.CfC(I, layer.wiring).double()
    theirs.load_state_dict(layer.state_dict())
    return theirs


@pytest.mark.parametrize("lengths", [None, [6, 0, T, 1, 8]])
@pytest.mark.parametrize("batch_first", [True, False])
def test_neither_direction_crosses_a_reset(lengths: list[int] | None, batch_first: bool) -> None:
    layer = Bidirectional(
        LTC(I, AutoNCP(N, 2), batch_first=batch_first), CfC(I, 7, batch_first=batch_first)
    ).double()
    x, resets = torch.randn(B, T, I).double(), torch.rand(B, T) < 0.4
    spans = torch.rand(B, T).double()
    hx = torch.randn(B, N).double(), torch.randn(B, 7).double()

    def axes(tensor: Tensor) -> Tensor:
        return tensor if batch_first else tensor.transpose(0, 1)

    output, _ = layer(axes(x), hx, axes(spans), lengths, axes(resets))
    output = axes(output)
    for b in range(B):
        for steps in episodes(resets[b], T if lengths is None else lengths[b]):
            if steps.start == steps.stop:
                continue
            back = torch.cat([spans[b, :1], spans[b, 1:]])[steps]
            # The first one backwards has the time step of the first one of the whole sequence where
            # it ends it, else that across the border.
            ends = steps.stop == (T if lengths is None else lengths[b])
            first = spans[b, 0] if ends else spans[b, steps.stop]
            turned = torch.cat([first[None], back[1:].flip(0)])
            there, _ = layer.forward_layer(
                axes(x[b : b + 1, steps]), hx[0][b : b + 1], axes(spans[b : b + 1, steps])
            )
            here, _ = layer.backward_layer(
                axes(x[b : b + 1, steps].flip(1)), hx[1][b : b + 1], axes(turned[None])
            )
            close(output[b, steps], torch.cat([axes(there), axes(here).flip(1)], -1)[0])


def test_packed_sequences_in_both_directions() -> None:
    layer = Bidirectional(LTC(I, AutoNCP(N, 2)), LTC(I, AutoNCP(N, 2))).double()
    x, resets, lengths = torch.randn(B, T, I).double(), torch.rand(B, T) < 0.4, [3, T, 1, 7, T]
    expected, states = layer(x, lengths=lengths, resets=resets)
    pack = {"batch_first": True, "enforce_sorted": False}
    packed, packed_resets, wanted = (
        pack_padded_sequence(t, torch.tensor(lengths), **pack) for t in (x, resets, expected)
    )
    for given in (resets, packed_resets):
        output, hn = layer(packed, resets=given)
        assert isinstance(output, PackedSequence)
        close((output.data, hn), (wanted.data, states))


def test_nested_tensors() -> None:
    layer, lengths = LTC(I, AutoNCP(N, 2)).double(), [3, T, 1]
    x, resets = torch.randn(3, T, I).double(), torch.rand(3, T) < 0.4
    output, hn = layer(x, lengths=lengths, resets=resets)
    parts, own = ([t[b, :n] for b, n in enumerate(lengths)] for t in (x, resets))
    nested, jagged = (torch.nested.as_nested_tensor(p, layout=torch.jagged) for p in (parts, own))
    for given in (resets, jagged):
        got, state = layer(nested, resets=given)
        close([*got.unbind(), state], [*(output[b, :n] for b, n in enumerate(lengths)), hn])
    with pytest.raises(ValueError, match="resets: expected as many steps as the input"):
        layer(nested, resets=torch.nested.as_nested_tensor(own[::-1], layout=torch.jagged))


def test_they_reach_every_layer_of_a_stack() -> None:
    model = Sequential(nn.Linear(I, 6), CfC(6, 7), nn.ReLU(), LTC(7, AutoNCP(N, 2))).double()
    x, resets = torch.randn(B, T, I).double(), torch.rand(B, T) < 0.4
    output, states = model(x, resets=resets)
    y, first = model[1](model[0](x), resets=resets)
    y, second = model[3](model[2](y), resets=resets)
    close((output, *states), (y, first, second))


def test_parallel_layers_share_them() -> None:
    layers = [LTC(I, AutoNCP(N, 2, seed=k)).double() for k in range(3)]
    nets, x = ParallelLTC(layers), torch.randn(3, B, T, I).double()
    hx, resets = torch.randn(3, B, N).double(), torch.rand(B, T) < 0.4
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            output, hn = nets(x, hx, resets=resets)
            for k, layer in enumerate(layers):
                close((output[k], hn[k]), layer(x[k], hx[k], resets=resets))


def test_no_gradient_crosses_a_reset() -> None:
    layer, x = LTC(I, AutoNCP(N, 2)), torch.randn(B, T, I, requires_grad=True)
    resets = torch.arange(T).expand(B, T) == 4
    output, _ = layer(x, resets=resets)
    (grad,) = torch.autograd.grad(output[:, 4:].sum(), x)
    assert (grad[:, :4] == 0).all()
    assert (grad[:, 4:].abs().sum(2) > 0).all()


def test_entries_of_vmap_may_have_their_own() -> None:
    for layer in (LTC(I, AutoNCP(N, 2)).double(), CfC(I, 7, mixed_memory=True).double()):
        x, resets = torch.randn(3, B, T, I).double(), torch.rand(3, B, T) < 0.4

        def loss(x: Tensor, resets: Tensor, layer: Any = layer) -> Tensor:
            return layer(x, resets=resets)[0].square().sum()

        got = torch.func.vmap(torch.func.grad(loss))(x, resets)
        shared = torch.func.vmap(torch.func.grad(loss), (0, None))(x, resets[0])
        for k in range(3):
            close(got[k], torch.func.grad(loss)(x[k], resets[k]))
            close(shared[k], torch.func.grad(loss)(x[k], resets[0]))


def test_exported_programs_and_compiled_code_take_them() -> None:
    layer = CfC(I, AutoNCP(N, 2), mixed_memory=True)
    x, resets = torch.randn(B, T, I), torch.rand(B, T) < 0.4
    batch, time = torch.export.Dim("batch", min=2), torch.export.Dim("time", min=2)
    shapes = {"input": {0: batch, 1: time}, "resets": {0: batch, 1: time}}
    program = torch.export.export(layer, (x,), {"resets": resets}, dynamic_shapes=shapes).module()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for batch_size, steps in ((B, T), (3, 4)):
        x, resets = torch.randn(batch_size, steps, I), torch.rand(batch_size, steps) < 0.4
        expected = layer(x, resets=resets)
        for run in (program, compiled):
            torch.testing.assert_close(flat(run(x, resets=resets)), flat(expected))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_and_autocast(dtype: torch.dtype) -> None:
    layer, x, resets = LTC(I, AutoNCP(N, 2)), torch.randn(B, T, I), torch.rand(B, T) < 0.4
    output, _ = layer(x.to(dtype).float(), resets=resets)
    half = copy.deepcopy(layer)
    got, _ = half(x.to(dtype), resets=resets)
    assert got.dtype == dtype
    torch.testing.assert_close(got, output.to(dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got, _ = layer(x, resets=resets)
    torch.testing.assert_close(got, layer(x, resets=resets)[0])


ONE = torch.zeros(B, T, dtype=torch.bool)
BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "of samples alone": (ONE[:, 0], ValueError, r"resets: .*\[B, T\] = \[5, 9\], got \[5\]"),
    "turned": (ONE.T, ValueError, r"resets: .*\[5, 9\], got \[9, 5\]"),
    "with a channel": (ONE[:, :, None], ValueError, r"resets: .*got \[5, 9, 1\]"),
    "of one sample": (ONE[:1], ValueError, r"resets: .*got \[1, 9\]"),
    "numbers": (ONE.float(), TypeError, r"resets: expected torch\.bool, got torch\.float32"),
    "integers": (ONE.to(torch.uint8), TypeError, r"resets: .*got torch\.uint8"),
    "a list": (ONE.tolist(), TypeError, "resets: expected a bool tensor, got list"),
    "a bool": (True, TypeError, "resets: expected a bool tensor, got bool"),
    "elsewhere": (ONE.to("meta"), TypeError, "resets: expected a tensor on cpu"),
    "packed": (
        pack_padded_sequence(ONE, torch.full((B,), T), batch_first=True),
        TypeError,
        "resets: expected a tensor with a tensor as input, got packed",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_what_they_cannot_be(what: str) -> None:
    resets, error, text = BAD[what]
    x = torch.randn(B, T, I)
    for layer in (LTC(I, AutoNCP(N, 2)), CfC(I, 7)):
        with pytest.raises(error, match=text):
            layer(x, resets=resets)
    if what != "packed":
        with pytest.raises(error, match=text):
            ParallelLTC([LTC(I, AutoNCP(N, 2))])(x[None], resets=resets)


def test_what_packed_ones_cannot_be() -> None:
    layer, x = LTC(I, AutoNCP(N, 2)), torch.randn(B, T, I)

    def pack(tensor: Tensor, lengths: list[int]) -> PackedSequence:
        return pack_padded_sequence(tensor, torch.tensor(lengths), True, enforce_sorted=False)

    lengths = [3, T, 1, 7, T]
    packed = pack(x, lengths)
    for resets, error, text in (
        (pack(ONE, [2, T, 1, 7, T]), ValueError, "resets: expected the batch sizes of the input"),
        (pack(ONE.float(), lengths), TypeError, r"resets: expected torch\.bool, got torch\.float"),
        (pack(ONE[:, :, None], lengths), ValueError, "resets: expected packed data of one axis"),
        (ONE[:, :4], ValueError, r"resets: expected shape \[B, T\] = \[5, 9\], got \[5, 4\]"),
    ):
        with pytest.raises(error, match=text):
            layer(packed, resets=resets)
