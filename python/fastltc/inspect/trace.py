"""The neurons of a layer over a sequence: states, time constants, currents, gates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastltc.inspect.membrane import Membrane
from fastltc.nn import LTC, CfC
from fastltc.nn.checks import check_dense
from fastltc.nn.resets import layer_resets
from fastltc.nn.sequence_layer import SequenceLayer, zero_behind
from fastltc.nn.timespans import layer_lengths, layer_timespans


@dataclass(frozen=True)
class Currents:
    """The currents into the membranes of an LTC, ``[B, T, N]`` each, in the unit of ``v gleak``.

    Their sum is ``cm dv/dt``: above 0 a current raises the potential.
    """

    leak: Tensor
    """``gleak (vleak - v)``."""
    recurrent: Tensor
    """From other neurons, the sum of ``w s (erev - v)`` over the synapses."""
    sensory: Tensor
    """The same from the inputs."""


@dataclass(frozen=True)
class Trace:
    """What the neurons of a layer did, step by step.

    Behind the lengths everything is 0. B is 1 for one sequence without a batch axis, and the order
    of the axes is the same whatever that of the layer is.
    """

    neurons: tuple[str, ...]
    """N names, the kind by the wiring (``inter``, ``command``, ``motor``), or ``neuron``, and the
    number in it."""
    times: Tensor
    """``[B, T]``: the sum of the time steps so far, in their unit; of time steps per neuron their
    mean."""
    states: Tensor
    """``[B, T, N]``: the states after each step; see ``return_states`` of the layers."""
    time_constants: Tensor
    """``[B, T, N]``, in the unit of the time steps; see :func:`trace`."""
    currents: Currents | None = None
    """Of an LTC; after each step, with the input of that step."""
    gates: Tensor | None = None
    """``[B, T, N]``, from 0 to 1, of a CfC but for mode ``"pure"``: how far the state has gone from
    its ``ff1`` to its ``ff2``."""
    lengths: Tensor | None = None
    """``[B]``, where they were given."""


def trace(
    layer: nn.Module,
    input: Tensor,
    hx: Any = None,
    timespans: Tensor | float | None = None,
    lengths: Tensor | list[int] | int | None = None,
    resets: Tensor | None = None,
    *,
    reset_to_zero: bool = False,
) -> Trace:
    r"""Follow the neurons of a layer over sequences.

    Effective time constants, in the unit of the time steps:

    LTC. The membrane equation is ``cm dv/dt = gleak (vleak - v) + sum w s (erev - v)``, summed over
    all synapses onto the neuron, of other neurons and of inputs; so the potential nears where the
    currents balance with the time constant of
    ``cm / (gleak + sum w s + epsilon)``, which the activities ``s`` of the synapses make liquid. It
    is that of the state after the step.

    CfC. The gate of a neuron is ``sigmoid(a dt + b)`` with ``a`` and ``b`` the outputs of
    ``time_a`` and ``time_b``; the paper calls ``a`` (its ``f``) the liquid time constant of that
    gate. ``1 / |a|`` is the time in which the argument of the gate changes by one. With mode
    ``"pure"`` the state is ``A - A exp(-dt (|w_tau| + |f|)) f``, and the time constant of the
    exponential is ``1 / (|w_tau| + |f|)``.

    Args:
        layer: an LTC or CfC layer, with or without mixed memory; it runs as it is, so call
            ``eval()`` where it has dropout.
        input: as for the layer, but for packed and nested ones.
        hx: the same.
        timespans: the same.
        lengths: the same.
        resets: the same.
        reset_to_zero: the same.

    Returns:
        The trace, differentiable as the layer is.

    Raises:
        TypeError: if it is no such layer, or the input is packed.
        ValueError: as the layer.

    Example:
        >>> import torch
        >>> from fastltc import LTC
        >>> from fastltc.inspect import trace
        >>> from fastltc.wirings import AutoNCP
        >>> seen = trace(LTC(4, AutoNCP(12, 2)), torch.randn(3, 50, 4), timespans=0.1)
        >>> seen.states.shape, seen.time_constants.shape, seen.neurons[0]
        (torch.Size([3, 50, 12]), torch.Size([3, 50, 12]), 'motor 0')

    Source: Hasani et al., Liquid Time-constant Networks, AAAI 2021; Closed-form continuous-time
    neural networks, Nature Machine Intelligence 2022.
    """
    if not isinstance(layer, (LTC, CfC)):
        raise TypeError(f"layer: expected an LTC or CfC layer, got {type(layer).__name__}")
    if not isinstance(input, Tensor):
        raise TypeError(
            f"input: expected a tensor, got {type(input).__name__}; pass lengths instead"
        )
    check_dense("input", input)
    given = input, hx, timespans, lengths, resets
    states = layer(*given, reset_to_zero=reset_to_zero, return_states=True)[2]
    batched = input.dim() == 3

    def rows(tensor: Tensor) -> Tensor:
        if not batched:
            return tensor.unsqueeze(0)
        return tensor if layer.batch_first else tensor.transpose(0, 1)

    x, states = rows(input), rows(states)
    batch, time, neurons = states.shape
    spans = layer_timespans(timespans, batch, time, neurons, layer.batch_first, batched, x)
    spans = x.new_ones(batch, time, 1) if spans is None else spans
    spans = spans if spans.dim() == 3 else spans.unsqueeze(2)
    steps = layer_lengths(lengths, batch, batched, x.device)
    x, spans = zero_behind(x, steps), zero_behind(spans, steps)
    if resets is not None:
        resets = layer_resets(resets, batch, time, layer.batch_first, batched, x.device)
    gates = currents = None
    if isinstance(layer, LTC):
        time_constants, *each = _of_ltc(layer.rnn_cell, x, states)
        currents = Currents(*(zero_behind(current, steps) for current in each))
    else:
        first = _first(hx, states, batched, layer.use_mixed)
        before = torch.cat([first, states[:, :-1]], 1)
        if resets is not None:
            start = torch.zeros_like(first) if reset_to_zero else first
            before = torch.where(resets.unsqueeze(2), start, before)
        if layer.use_mixed:
            before = _remembered(layer, x, before, hx, batched, resets, reset_to_zero)
        time_constants, gates = _of_cfc(layer, x, before, states, spans)
        gates = None if gates is None else zero_behind(gates, steps)
    return Trace(
        neurons=names_of(layer),
        times=spans.mean(2).cumsum(1),
        states=states,
        time_constants=zero_behind(time_constants, steps),
        currents=currents,
        gates=gates,
        lengths=steps,
    )


def trace_model(model: nn.Module, *arguments: Any, **options: Any) -> dict[str, Trace]:
    """Run a model and follow the neurons of every LTC and CfC layer in it.

    Args:
        model: any module, as of ``Run.open(FOLDER).load_checkpoint().model``.
        arguments: what it is called with.
        options: the same.

    Returns:
        The trace of each layer by its name in the model, of its last call; those that are not
        called, or with a packed sequence, are left out.

    Example:
        >>> import torch
        >>> from fastltc import CfC, LTC, Sequential
        >>> from fastltc.inspect import trace_model
        >>> model = Sequential(CfC(4, 8), LTC(8, 3))
        >>> seen = trace_model(model, torch.randn(2, 5, 4))
        >>> {name: tuple(of.states.shape) for name, of in seen.items()}
        {'0': (2, 5, 8), '1': (2, 5, 3)}
    """
    calls: dict[str, tuple[Any, Any]] = {}
    layers = {name: m for name, m in model.named_modules() if isinstance(m, (LTC, CfC))}
    handles = []
    for name, layer in layers.items():

        def keep(_: Any, given: Any, named: dict[str, Any], name: str = name) -> None:
            calls[name] = given, {k: v for k, v in named.items() if k != "return_states"}

        handles.append(layer.register_forward_pre_hook(keep, with_kwargs=True))
    try:
        model(*arguments, **options)
    finally:
        for handle in handles:
            handle.remove()
    return {
        name: trace(layers[name], *given, **named)
        for name, (given, named) in calls.items()
        if isinstance((*given, *named.values())[0], Tensor)
    }


def names_of(layer: SequenceLayer) -> tuple[str, ...]:
    """Return a name for each neuron, in the order of the state."""
    cell = layer.rnn_cell
    wiring = getattr(cell, "_wiring", None)
    if wiring is None:
        return tuple(f"neuron {k}" for k in range(cell.hidden_size))
    order: list[int] = list(range(wiring.units))
    if isinstance(layer, CfC):
        order = [
            k for number in range(wiring.num_layers) for k in wiring.get_neurons_of_layer(number)
        ]
    counts: dict[str, int] = {}
    names = {}
    for neuron in range(wiring.units):
        kind = wiring.get_type_of_neuron(neuron)
        names[neuron] = f"{kind} {counts.setdefault(kind, 0)}"
        counts[kind] += 1
    return tuple(names[neuron] for neuron in order)


def _of_ltc(cell: Any, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return time constants, and the currents in the order of :class:`Currents`."""
    membrane = Membrane(cell)
    batch, time, _ = v.shape
    sums = membrane.conductances(x.flatten(0, 1), v.flatten(0, 1))
    recurrent, recurrent_reversal, sensory, sensory_reversal = (
        part.unflatten(0, (batch, time)) for part in sums
    )
    total = membrane.gleak + recurrent + sensory + membrane.epsilon
    return (
        membrane.cm / total,
        membrane.gleak * (membrane.vleak - v),
        recurrent_reversal - recurrent * v,
        sensory_reversal - sensory * v,
    )


def _first(hx: Any, states: Tensor, batched: bool, mixed: bool) -> Tensor:
    """Return the states before the first step, ``[B, 1, N]``."""
    if hx is None:
        return torch.zeros_like(states[:, :1]) if states.shape[1] else states
    h = hx[0] if mixed else hx
    return (h if batched else h.unsqueeze(0)).unsqueeze(1).to(states.dtype)


def _remembered(
    layer: Any,
    x: Tensor,
    before: Tensor,
    hx: Any,
    batched: bool,
    resets: Tensor | None,
    reset_to_zero: bool,
) -> Tensor:
    """Return what the memory cell makes of the states before each step."""
    if hx is None:
        first = before.new_zeros(before.shape[0], before.shape[2])
    else:
        first = hx[1] if batched else hx[1].unsqueeze(0)
    start = torch.zeros_like(first) if reset_to_zero else first
    found, c = [], first
    for t in range(x.shape[1]):
        if resets is not None:
            c = torch.where(resets[:, t : t + 1], start, c)
        h, c = layer.lstm(x[:, t], (before[:, t], c))
        found.append(h)
    return torch.stack(found, 1) if found else before


def _of_cfc(
    layer: CfC, x: Tensor, before: Tensor, after: Tensor, spans: Tensor
) -> tuple[Tensor, Tensor | None]:
    cells = layer.rnn_cell._layers if layer.wired_mode else [layer.rnn_cell]
    sizes = [cell.hidden_size for cell in cells]
    spans = spans.expand(*spans.shape[:2], sum(sizes)).split(sizes, 2)
    time_constants, gates = [], []
    signal = x
    for cell, own, new, span in zip(
        cells, before.split(sizes, 2), after.split(sizes, 2), spans, strict=True
    ):
        z = torch.cat([signal, own], 2)
        if cell.backbone_layers > 0:
            z = cell.backbone(z)
        if cell.mode == "pure":
            weight, mask = cell.ff1.weight, cell.sparsity_mask
            weight = weight if mask is None else torch.where(mask != 0, weight, 0)
            f = F.linear(z, weight, cell.ff1.bias)
            time_constants.append(1 / (cell.w_tau.abs() + f.abs()))
        else:
            rate = cell.time_a(z)
            time_constants.append(1 / rate.abs())
            gates.append(torch.sigmoid(rate * span + cell.time_b(z)))
        signal = new
    return torch.cat(time_constants, 2), torch.cat(gates, 2) if gates else None
