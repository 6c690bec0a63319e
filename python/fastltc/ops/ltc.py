"""The LTC operators: their parameters, what they keep, and the function that modules call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastltc import reference
from fastltc._parameters import LTC_PARAMETERS
from fastltc.ops.batching import TENSORS, run_beside
from fastltc.ops.precision import check_precision, is_medium
from fastltc.ops.sequence import SequenceOperator, Sequences
from fastltc.ops.synapses import repeat_synapses, synapse_mask

_CM = LTC_PARAMETERS.index("cm")
_FIRST_MAP = LTC_PARAMETERS.index("input_w")
_ALL_MAPS = (1 << len(LTC_PARAMETERS) - _FIRST_MAP) - 1


def _kept_unfolds(x: Tensor, neurons: int, synapses: Tensor, unfolds: int, nets: int = 1) -> int:
    """As ltc_kept_unfolds in csrc/core/ltc_problem.h."""
    count = synapses.shape[0] - neurons - 1
    of_all = x.shape[0] * x.shape[1] * neurons * unfolds
    return 1 if count * unfolds <= nets << 12 or of_all > 1 << 28 else unfolds


def _keeps_rates(x: Tensor, neurons: int, synapses: Tensor) -> bool:
    """As ltc_keeps_rates in csrc/cuda/ltc.h: dense networks."""
    if x.dtype == torch.float64 or neurons > 256:
        return False
    count = synapses.shape[0] - neurons - 1
    return count > 4096 and 4 * count >= neurons * neurons


def _sizes(
    x: Tensor,
    timespans: Tensor | None,
    parameters: Sequence[Tensor],
    memory: Sequence[Tensor],
    synapses: Tensor,
    sensory_synapses: Tensor,
    maps: int,
    output_size: int,
    ode_unfolds: int,
    *rest: Any,
) -> tuple[int, int, int]:
    # Stacked parameters are those of several layers beside each other.
    cm = parameters[_CM]
    neurons, stacked = cm.numel(), cm.dim() == 2
    if x.device.type != "cuda":
        nets = cm.shape[0] if stacked else 1
        states = _kept_unfolds(x, neurons, synapses, ode_unfolds, nets)
    elif not memory and not stacked and _keeps_rates(x, neurons, synapses):
        states = 2 * ode_unfolds
    else:
        states = ode_unfolds
    if memory:
        states += 6
    return neurons, output_size * cm.shape[0] if stacked else output_size, states * neurons


def _reference(arguments: Sequence[Any]) -> tuple[Tensor, Tensor]:
    x, h0, timespans, *others, parameters, memory, synapses, sensory_synapses = arguments[:TENSORS]
    # Always of the highest precision.
    maps, output_size, ode_unfolds, epsilon, softplus, _, to_zero, return_sequences = arguments[
        TENSORS:
    ]
    present = (
        m for m in range(len(LTC_PARAMETERS)) if m < _FIRST_MAP or maps >> m - _FIRST_MAP & 1
    )
    named = {LTC_PARAMETERS[m]: tensor for m, tensor in zip(present, parameters, strict=True)}
    cm = named["cm"]
    count, neurons = cm.shape if cm.dim() == 2 else (1, cm.shape[0])
    masks = (
        synapse_mask(synapses, count * neurons, count * neurons),
        synapse_mask(sensory_synapses, x.shape[2], count * neurons),
    )

    def run(data: Sequence[Any], named: dict[str, Tensor], *masks: Tensor) -> Any:
        return reference.ltc(
            *(*data, *others),
            reset_to_zero=to_zero,
            **named,
            mask=masks[0],
            sensory_mask=masks[1],
            memory=memory or None,
            output_size=output_size,
            ode_unfolds=ode_unfolds,
            epsilon=epsilon,
            softplus=softplus,
            return_sequences=return_sequences,
        )

    if cm.dim() == 1:
        return run((x, h0, timespans), named, *masks)

    def run_layer(k: int, *data: Any) -> Any:
        own = {name: tensor[k] for name, tensor in named.items()}
        return run(data, own, *(mask.chunk(count, 0)[k].chunk(count, 1)[k] for mask in masks))

    return run_beside(count, run_layer, x, h0, timespans)


def _repeat(
    count: int, x: Tensor, parameters: Sequence[Tensor], lists: Sequence[Any]
) -> tuple[Tensor, Tensor]:
    synapses, sensory_synapses = lists
    neurons = parameters[_CM].shape[-1]
    return (
        repeat_synapses(synapses, neurons, neurons, count),
        repeat_synapses(sensory_synapses, x.shape[-1] // count, neurons, count),
    )


_run = SequenceOperator(
    "ltc", _sizes, _reference, axes=1, names=LTC_PARAMETERS[:_FIRST_MAP], repeat=_repeat
).run


def ltc(
    x: Tensor,
    h0: Tensor | None,
    timespans: Tensor | None,
    lengths: Tensor | None,
    parameters: Sequence[Tensor | None],
    synapses: Tensor,
    sensory_synapses: Tensor,
    output_size: int,
    ode_unfolds: int = 6,
    epsilon: float = 1e-8,
    softplus: bool = True,
    return_sequences: bool = True,
    time_major: bool = False,
    memory: Sequence[Tensor] | None = None,
    resets: Tensor | None = None,
    reset_to_zero: bool = False,
    sigmoid_precision: str | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Run a liquid time-constant (LTC) layer over a batch of sequences, compiled.

    The equation is that of :func:`fastltc.reference.ltc`. The work follows the number of
    synapses, not ``N * N``. float32 and float64 are computed as they are. Half types are stored
    only: where ``x`` or the parameters are float16 or bfloat16, everything is computed in float32
    and the results have the dtype of ``x``. Under autocast they are float32.

    Args:
        x: inputs, ``[B, T, I]``, floating point, any strides.
        h0: initial state, ``[B, N]``; zeros when None.
        timespans: time since the last step, ``[B, T]`` or, one per neuron, ``[B, T, N]``, in
            seconds, not negative, any strides; 1 when None. 0 holds the state, but for what
            ``memory`` makes of it.
        lengths: valid steps of each sample, ``[B]``, int64, 0 to T; T when None. From
            ``t = lengths[b]`` on the state is held and the output is 0.
        parameters: the tensors named by ``LTC_PARAMETERS``, in that order: ``[N]`` three times,
            ``[N, N]`` four times, ``[I, N]`` four times, then the maps, each of which may be
            None: ``[I]`` twice and ``[M]`` twice. Or all of them stacked, ``[K, N]`` and so on: K
            layers beside each other, with no synapses between them. x then is ``[B, T, K I]``,
            states are ``[B, K N]`` and outputs ``[B, T, K M]``, one layer after another; see
            :class:`fastltc.ParallelLTC`. Without ``memory``.
        synapses: int32, as :func:`fastltc.ops.synapse_list` makes it from the ``[N, N]`` mask, or
            :func:`fastltc.ops.stacked_synapse_list` from several.
            Parameters of missing synapses are never read and have a gradient of exactly 0.
        sensory_synapses: the same of the ``[I, N]`` mask.
        output_size: M, the number of motor neurons, which come first.
        ode_unfolds: U, solver steps per time step.
        epsilon: added to the denominator.
        softplus: whether conductances and capacitance pass through a softplus.
        return_sequences: return the output of every step, or only that of the last valid one.
        time_major: lay the output out in memory as ``[T, B, M]``; its shape is the same.
        memory: weight, bias and recurrent weight of the memory cell of mixed memory, see
            :func:`fastltc.reference.memory_cell`; none by default. The state is then ``[B, 2 N]``:
            that of the liquid cell and behind it the memory. The same holds for ``hn``.
        resets: steps before which a sample's state, with ``memory`` both halves of it, is set to
            ``h0``, ``[B, T]``, bool, any strides; none when None. The gradient of ``h0`` is the
            sum over all of them and the beginning.
        reset_to_zero: have resets set the state to zeros instead; ``h0`` is then that before the
            first step alone.
        sigmoid_precision: ``"highest"`` or ``"medium"``; when None what
            :func:`fastltc.set_sigmoid_precision` has set.

    Returns:
        ``(output, hn)``: ``[B, T, M]`` (or ``[B, M]``) and the state after the last valid step,
        ``[B, N]``. Both are differentiable any number of times (those beyond one backward
        pass at the speed of the reference), and deterministic: the same call with the same
        number of threads gives the same bits. Whether a gradient is asked for may change the
        rounding of small batches, which have kernels of their own for inference.

    Raises:
        ValueError: if a shape or a value is wrong.
        TypeError: if a dtype or a device is wrong.
        NotImplementedError: if there are no kernels for the device.

    Example:
        >>> import torch
        >>> from fastltc.nn import synapse_list
        >>> from fastltc.ops import ltc
        >>> n, i = 3, 2
        >>> parameters = [torch.rand(n) for _ in range(3)] + [torch.rand(n, n) for _ in range(4)]
        >>> parameters += [torch.rand(i, n) for _ in range(4)] + [None] * 4
        >>> output, hn = ltc(
        ...     torch.randn(4, 5, i), None, None, None, parameters,
        ...     synapse_list(torch.ones(n, n)), synapse_list(torch.ones(i, n)), output_size=1)
        >>> output.shape, hn.shape
        (torch.Size([4, 5, 1]), torch.Size([4, 3]))

    Source: Hasani et al., Liquid Time-constant Networks, AAAI 2021, algorithm 1.
    """
    if sigmoid_precision is not None:
        check_precision(sigmoid_precision, "sigmoid_precision")
    return run_ltc(
        Sequences(
            *(x, h0, timespans, lengths, memory or (), return_sequences, time_major, resets),
            reset_to_zero,
        ),
        parameters,
        synapses,
        sensory_synapses,
        output_size,
        ode_unfolds,
        epsilon,
        softplus,
        sigmoid_precision,
    )


def run_ltc(
    sequences: Sequences,
    parameters: Sequence[Tensor | None],
    synapses: Tensor,
    sensory_synapses: Tensor,
    output_size: int,
    ode_unfolds: int,
    epsilon: float,
    softplus: bool,
    sigmoid_precision: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Do what :func:`ltc` does, for modules."""
    input_w, input_b, output_w, output_b = parameters[_FIRST_MAP:]
    present: Any = parameters
    maps = _ALL_MAPS
    if input_w is None or input_b is None or output_w is None or output_b is None:
        given = parameters[_FIRST_MAP:]
        maps = sum(1 << m for m, tensor in enumerate(given) if tensor is not None)
        present = [*parameters[:_FIRST_MAP], *(tensor for tensor in given if tensor is not None)]
    connections = synapses, sensory_synapses
    medium = is_medium(sigmoid_precision)
    options = maps, output_size, ode_unfolds, epsilon, softplus, medium
    return _run(sequences, present, connections, options)
