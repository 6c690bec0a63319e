"""The CfC operators: what they keep, and the function that modules call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastltc import reference
from fastltc._parameters import CFC_ACTIVATIONS, CFC_MODES
from fastltc.ops.batching import run_beside
from fastltc.ops.sequence import HALF_DTYPES, SequenceOperator, Sequences

_MODES = {name: number for number, name in enumerate(CFC_MODES)}
_ACTIVATIONS = {name: number for number, name in enumerate(CFC_ACTIVATIONS)}


def _sizes(
    x: Tensor,
    timespans: Tensor | None,
    parameters: Sequence[Tensor],
    memory: Sequence[Tensor],
    masks: Sequence[Tensor],
    dropout: Tensor | None,
    layer_sizes: Sequence[int],
    backbone_layers: int,
    mode: int,
    activation: int,
    output_size: int,
) -> tuple[int, int, int]:
    # Stacked parameters are those of several layers beside each other.
    count = parameters[0].shape[0] if parameters and parameters[0].dim() == 3 else 1
    neurons = count * sum(layer_sizes)
    # The state before the step; what its cells computed; what a memory cell keeps; the
    # activations of the backbone.
    computed = 1 if CFC_MODES[mode] == "pure" else (3 if timespans is None else 4)
    remembered = 5 if memory else 0
    units = count * parameters[0].shape[-2] if backbone_layers else 0
    kept = (1 + computed + remembered) * neurons + backbone_layers * units
    return neurons, count * output_size, kept


def _reference(arguments: Sequence[Any]) -> tuple[Tensor, Tensor]:
    x, h0, timespans, *others, parameters, memory, masks, dropout = arguments[:-7]
    sizes, layers, mode, activation, output_size, to_zero, whole = arguments[-7:]

    def run(data: Sequence[Any], parameters: Any, dropout: Any) -> Any:
        return reference.cfc(
            *(*data, *others),
            reset_to_zero=to_zero,
            parameters=parameters,
            masks=masks,
            layer_sizes=sizes,
            backbone_layers=layers,
            mode=CFC_MODES[mode],
            activation=CFC_ACTIVATIONS[activation],
            dropout=dropout,
            memory=memory or None,
            output_size=output_size,
            return_sequences=whole,
        )

    if parameters[0].dim() == 2:
        return run((x, h0, timespans), parameters, dropout)

    def run_layer(k: int, *data: Any) -> Any:
        factors = None if dropout is None else dropout.chunk(len(parameters[0]), -1)[k]
        return run(data, [parameter[k] for parameter in parameters], factors)

    return run_beside(len(parameters[0]), run_layer, x, h0, timespans)


_run = SequenceOperator("cfc", _sizes, _reference, axes=2).run


def cfc(
    x: Tensor,
    h0: Tensor | None,
    timespans: Tensor | None,
    lengths: Tensor | None,
    parameters: Sequence[Tensor],
    masks: Sequence[Tensor],
    layer_sizes: Sequence[int],
    backbone_layers: int = 0,
    mode: str = "default",
    activation: str = "lecun_tanh",
    dropout: Tensor | None = None,
    return_sequences: bool = True,
    time_major: bool = False,
    memory: Sequence[Tensor] | None = None,
    resets: Tensor | None = None,
    output_size: int | None = None,
    reset_to_zero: bool = False,
) -> tuple[Tensor, Tensor]:
    r"""Run a closed-form continuous-time (CfC) layer over a batch of sequences, compiled.

    The equation is that of :func:`fastltc.reference.cfc`. float32 and float64 are computed as
    they are. Half types are stored only: where ``x`` or the parameters are float16 or bfloat16,
    everything is computed in float32 and the results have the dtype of ``x``. Under autocast they
    are float32.

    Args:
        x: inputs, ``[B, T, I]``, floating point, any strides.
        h0: initial state, ``[B, N]`` with N neurons in all, in the order of the layers; zeros
            when None.
        timespans: time since the last step, ``[B, T]`` or, one per neuron, ``[B, T, N]``, in
            seconds, not negative, any strides; 1 when None.
        lengths: valid steps of each sample, ``[B]``, int64, 0 to T; T when None. From
            ``t = lengths[b]`` on the state is held and the output is 0.
        parameters: first, for each backbone layer, weight ``[units, in]`` and bias ``[units]``;
            then, for each cell of n neurons, weight ``[n, K]`` and bias ``[n]`` of ``ff1``,
            ``ff2``, ``time_a`` and ``time_b``; with mode ``"pure"`` instead weight and bias of
            ``ff1``, then ``w_tau`` and ``A``, each ``[1, n]``. K is the number of inputs of the
            cell plus n, or the units of the backbone. Or all of them stacked, as many layers beside
            each other as their first axis has: ``x``, states and outputs are those of one layer
            after another, as in :func:`ltc`, and so are ``timespans`` ``[B, T, N]`` and
            ``dropout``; the masks are the same for all. Without ``memory``, and on the CPU only.
        masks: none, or for each cell which weights of ``ff1`` and ``ff2`` exist, ``[n, K]``, 0 or
            1. The others are never read and have a gradient of exactly 0. With a backbone none.
        layer_sizes: neurons of each cell.
        backbone_layers: number of backbone layers; only with one cell.
        mode: one of ``CFC_MODES``.
        activation: of the backbone, one of ``CFC_ACTIVATIONS``.
        dropout: what the activations of all backbone layers but the first are multiplied with,
            ``[backbone_layers - 1, B, T, units]``: 0 or ``1 / (1 - p)``; nothing when None. Not
            differentiable.
        return_sequences: return the output of every step, or only that of the last valid one.
        time_major: lay the output out in memory as ``[T, B, M]``; its shape is the same.
        memory: weight, bias and recurrent weight of the memory cell of mixed memory, see
            :func:`fastltc.reference.memory_cell`; none by default. The state is then ``[B, 2 N]``:
            that of the liquid cell and behind it the memory. The same holds for ``hn``.
        resets: steps before which a sample's state, with ``memory`` both halves of it, is set to
            ``h0``, ``[B, T]``, bool, any strides; none when None. The gradient of ``h0`` is the
            sum over all of them and the beginning.
        output_size: M, the number of neurons, the last ones, whose state is the output; by default
            those of the last cell, ``layer_sizes[-1]``.
        reset_to_zero: have resets set the state to zeros instead; ``h0`` is then that before the
            first step alone.

    Returns:
        ``(output, hn)``: ``[B, T, M]`` (or ``[B, M]``), and the state after the last valid step,
        ``[B, N]``. Both are differentiable any number of
        times (those beyond one backward pass at the speed of the reference), and deterministic:
        the same call with the same number of threads gives the same bits.

    Raises:
        ValueError: if a shape or a value is wrong.
        TypeError: if a dtype or a device is wrong.
        NotImplementedError: if there are no kernels for the device.

    Example:
        >>> import torch
        >>> from fastltc.ops import cfc
        >>> weights = [torch.randn(3, 2 + 3) if i % 2 == 0 else torch.zeros(3) for i in range(8)]
        >>> output, hn = cfc(torch.randn(4, 5, 2), None, None, None, weights, [], [3])
        >>> output.shape, hn.shape
        (torch.Size([4, 5, 3]), torch.Size([4, 3]))

    Source: Hasani et al., Closed-form continuous-time neural networks, Nature Machine
    Intelligence 2022 (arXiv:2106.13898).
    """
    return run_cfc(
        Sequences(
            *(x, h0, timespans, lengths, memory or (), return_sequences, time_major, resets),
            reset_to_zero,
        ),
        parameters,
        masks,
        layer_sizes,
        backbone_layers,
        mode,
        activation,
        dropout,
        output_size,
    )


def run_cfc(
    sequences: Sequences,
    parameters: Sequence[Tensor],
    masks: Sequence[Tensor],
    layer_sizes: Sequence[int],
    backbone_layers: int,
    mode: str,
    activation: str,
    dropout: Tensor | None = None,
    output_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Do what :func:`cfc` does, for modules."""
    if mode not in _MODES:
        raise ValueError(f"mode: expected one of {', '.join(_MODES)}, got {mode!r}")
    if activation not in _ACTIVATIONS:
        raise ValueError(
            f"activation: expected one of {', '.join(_ACTIVATIONS)}, got {activation!r}"
        )
    dtype = sequences.x.dtype
    if dtype in HALF_DTYPES:
        dtype = torch.float32
    for mask in masks:
        if mask.dtype != dtype:
            masks = [m.to(dtype) for m in masks]
            break
    if output_size is None:
        # Of no cells the operator says what is wrong.
        output_size = layer_sizes[-1] if layer_sizes else 1
    options = layer_sizes, backbone_layers, _MODES[mode], _ACTIVATIONS[activation], output_size
    return _run(sequences, parameters, (masks, dropout), options)
