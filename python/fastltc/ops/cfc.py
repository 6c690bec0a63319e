"""The CfC operators: fake kernels, autograd, autocast, and the function that modules call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from fastltc._extension import load_operators
from fastltc.ops.checks import check_cfc_arguments, check_has_kernels, check_same_device
from fastltc.ops.ltc import HALF_DTYPES, NO_MEMORY, widen

__all__ = ["CFC_ACTIVATIONS", "CFC_MODES", "cfc"]

load_operators()
_forward = torch.ops.fastltc.cfc_forward.default
_backward = torch.ops.fastltc.cfc_backward.default

CFC_MODES = ("default", "no_gate", "pure")
"""Names of the modes; the operators take the position."""

CFC_ACTIVATIONS = ("lecun_tanh", "silu", "relu", "tanh", "gelu")
"""Names of the activations of the backbone; the operators take the position."""

_MODES = {name: number for number, name in enumerate(CFC_MODES)}
_ACTIVATIONS = {name: number for number, name in enumerate(CFC_ACTIVATIONS)}


@torch.library.register_fake("fastltc::cfc_forward")
def _forward_fake(
    x: Tensor,
    h0: Tensor | None,
    timespans: Tensor | None,
    lengths: Tensor | None,
    parameters: Sequence[Tensor],
    masks: Sequence[Tensor],
    layer_sizes: Sequence[int],
    backbone_layers: int,
    mode: int,
    activation: int,
    dropout: Tensor | None,
    memory_w: Tensor | None,
    memory_b: Tensor | None,
    memory_recurrent_w: Tensor | None,
    return_sequences: bool,
    time_major: bool,
    save_states: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    check_same_device(
        "fastltc::cfc_forward",
        x,
        *(h0, timespans, lengths, *parameters, *masks, dropout),
        *(memory_w, memory_b, memory_recurrent_w),
    )
    batch, time, _ = x.shape
    neurons, motors = sum(layer_sizes), layer_sizes[-1]
    if not return_sequences:
        output = x.new_empty(batch, motors)
    elif time_major:
        output = x.new_empty(time, batch, motors).transpose(0, 1)
    else:
        output = x.new_empty(batch, time, motors)
    # The state before every step and after the last one; what the cells of a step computed; the
    # activations of its backbone; what a memory cell keeps.
    units = parameters[0].shape[0] if backbone_layers else 0
    kept = 1 if CFC_MODES[mode] == "pure" else (3 if timespans is None else 4)
    remembered = 0 if memory_w is None else 5
    per_step = (1 + kept + remembered) * neurons + backbone_layers * units
    states = x.new_empty(batch * (neurons + time * per_step) if save_states else 0)
    return output, x.new_empty(batch, neurons if memory_w is None else 2 * neurons), states


@torch.library.register_fake("fastltc::cfc_backward")
def _backward_fake(
    grad_output: Tensor | None,
    grad_hn: Tensor | None,
    x: Tensor,
    h0: Tensor | None,
    timespans: Tensor | None,
    lengths: Tensor | None,
    parameters: Sequence[Tensor],
    masks: Sequence[Tensor],
    layer_sizes: Sequence[int],
    backbone_layers: int,
    mode: int,
    activation: int,
    dropout: Tensor | None,
    memory_w: Tensor | None,
    memory_b: Tensor | None,
    memory_recurrent_w: Tensor | None,
    states: Tensor,
    return_sequences: bool,
    time_major: bool,
    timespans_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor], Tensor, Tensor, Tensor]:
    check_same_device(
        "fastltc::cfc_backward",
        x,
        *(grad_output, grad_hn, h0, timespans, lengths, *parameters, *masks, dropout, states),
        *(memory_w, memory_b, memory_recurrent_w),
    )
    batch, time, inputs = x.shape
    if time_major:
        grad_x = x.new_empty(time, batch, inputs).transpose(0, 1)
    else:
        grad_x = x.new_empty(batch, time, inputs)
    return (
        grad_x,
        x.new_empty(0 if h0 is None else h0.shape),
        x.new_empty(timespans.shape if timespans is not None and timespans_grad else 0),
        [x.new_empty(parameter.shape) for parameter in parameters],
        x.new_empty(0 if memory_w is None else memory_w.shape),
        x.new_empty(0 if memory_b is None else memory_b.shape),
        x.new_empty(0 if memory_recurrent_w is None else memory_recurrent_w.shape),
    )


# The autograd kernel, which register_autograd puts in Python, costs as much as the rest of a call.
def _forward_without_autograd(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    with torch._C._AutoDispatchBelowAutograd():
        return _forward(*arguments)


def _backward_without_autograd(*arguments: Any) -> tuple[Any, ...]:
    with torch._C._AutoDispatchBelowAutograd():
        return _backward(*arguments)


def _save(
    ctx: Any,
    data: Sequence[Tensor | None],
    parameters: Sequence[Tensor],
    masks: Sequence[Tensor],
    states: Tensor,
    options: tuple[Any, ...],
) -> None:
    """Keep what the backward needs.

    Args:
        ctx: of the autograd function.
        data: x, h0, timespans, lengths, dropout and the three tensors of the memory cell.
        parameters: those of the operator.
        masks: those of the operator.
        states: third result of the forward.
        options: layer_sizes, backbone_layers, mode, activation, return_sequences, time_major,
            save_states.
    """
    ctx.save_for_backward(*data, states, *parameters, *masks)
    ctx.counts = len(parameters), len(masks)
    ctx.options = options
    ctx.set_materialize_grads(False)


def _gradients(
    ctx: Any, timespans_grad: bool, grad_output: Tensor | None, grad_hn: Tensor | None
) -> tuple[Tensor | None, Tensor | None, Tensor | None, list[Tensor | None], list[Tensor | None]]:
    """Return the gradients of x, h0, timespans and the parameters, and of the memory cell."""
    x, h0, timespans, lengths, dropout, *rest = ctx.saved_tensors
    memory, states, rest = rest[:3], rest[3], rest[4:]
    count, _ = ctx.counts
    parameters, masks = rest[:count], rest[count:]
    layer_sizes, backbone_layers, mode, activation, *layout, save_states = ctx.options
    if not save_states:
        raise RuntimeError(
            "fastltc::cfc_forward: expected save_states=True where a gradient is asked for, "
            "got save_states=False"
        )
    if grad_output is None and grad_hn is None:
        return None, None, None, [None] * count, [None] * 3
    timespans_grad = timespans_grad and timespans is not None
    arguments = (
        *(grad_output, grad_hn, x, h0, timespans, lengths, parameters, masks, layer_sizes),
        *(backbone_layers, mode, activation, dropout, *memory, states, *layout, timespans_grad),
    )
    grads: Any
    grad_memory: Any
    if torch.is_grad_enabled() and torch._C._are_functorch_transforms_active():
        tensors = grad_output, grad_hn, x, h0, timespans, lengths, dropout, *memory, states
        grad_x, grad_h0, grad_timespans, *grads = _TransformableBackward.apply(
            (ctx.counts, ctx.options[:-1], timespans_grad), *tensors, *parameters, *masks
        )
        grads, grad_memory = grads[:count], grads[count:]
    else:
        backward = _backward if torch.is_grad_enabled() else _backward_without_autograd
        grad_x, grad_h0, grad_timespans, grads, *grad_memory = backward(*arguments)
    return (
        grad_x,
        None if h0 is None else grad_h0,
        grad_timespans if timespans_grad else None,
        list(grads),
        [None if p is None else g for p, g in zip(memory, grad_memory, strict=True)],
    )


def _no_second_derivative(ctx: Any, *grads: Any) -> None:
    raise NotImplementedError(
        "fastltc: the second derivative of the CfC layer is not implemented (the backward of "
        "fastltc::cfc_backward was asked for, as by create_graph=True); use fastltc.reference.cfc "
        "where it is needed"
    )


def _operator_setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, h0, timespans, lengths, parameters, masks, *options = inputs
    tensors = options[4:8]  # dropout and the memory cell
    del options[4:8]
    states = output[2]
    _save(ctx, (x, h0, timespans, lengths, *tensors), parameters, masks, states, tuple(options))
    ctx.mark_non_differentiable(states)


def _operator_gradients(
    ctx: Any, grad_output: Tensor | None, grad_hn: Tensor | None, grad_states: Tensor | None
) -> tuple[Any, ...]:
    *data, parameters, memory = _gradients(ctx, ctx.needs_input_grad[2], grad_output, grad_hn)
    masks = [None] * ctx.counts[1]
    return (*data, None, parameters, masks, *(None,) * 5, *memory, *(None,) * 3)


torch.library.register_autograd(
    "fastltc::cfc_forward", _operator_gradients, setup_context=_operator_setup_context
)
torch.library.register_autograd("fastltc::cfc_backward", _no_second_derivative)
# Under autocast the layer runs, and returns, float32, as LTC does.
for _device in ("cpu", "cuda"):
    torch.library.register_autocast("fastltc::cfc_forward", _device, torch.float32)


def _nested(flat: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the arguments of ``cfc_forward`` from those of an autograd function.

    Autograd functions see no tensors inside lists.
    """
    (count, _), options, x, h0, timespans, lengths, dropout, *rest = flat
    memory, rest = rest[:3], rest[3:]
    return (
        *(x, h0, timespans, lengths, rest[:count], rest[count:]),
        *(*options[:4], dropout, *memory, *options[4:]),
    )


def _flat_gradients(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    """Return the gradient of every argument of an autograd function."""
    *data, parameters, memory = _gradients(ctx, ctx.needs_input_grad[4], *grads[:2])
    return (None, None, *data, None, None, *memory, *parameters, *(None,) * ctx.counts[1])


class _EagerCfC(torch.autograd.Function):
    """``cfc_forward`` with gradients, for eager mode; faster than ``register_autograd``'s."""

    @staticmethod
    def forward(ctx: Any, *flat: Any) -> tuple[Tensor, Tensor]:
        arguments = _nested(flat)
        output, hn, states = _forward_without_autograd(*arguments)
        _save(ctx, flat[2:10], arguments[4], arguments[5], states, flat[1])
        return output, hn

    backward = staticmethod(_flat_gradients)


class _TransformableCfC(torch.autograd.Function):
    """``cfc_forward`` inside ``torch.func.grad`` and its like."""

    @staticmethod
    def forward(*flat: Any) -> tuple[Tensor, Tensor, Tensor]:
        return _forward_without_autograd(*_nested(flat))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        arguments, states = _nested(inputs), output[2]
        _save(ctx, inputs[2:10], arguments[4], arguments[5], states, inputs[1])
        ctx.mark_non_differentiable(states)

    backward = staticmethod(_flat_gradients)


class _TransformableBackward(torch.autograd.Function):
    """``cfc_backward`` there."""

    @staticmethod
    def forward(*flat: Any) -> tuple[Tensor, ...]:
        (counts, options, timespans_grad), grad_output, grad_hn, *tensors = flat
        *data, states = tensors[:9]
        nested = _nested((counts, options, *data, *tensors[9:]))
        *grads, parameters, grad_w, grad_b, grad_recurrent_w = _backward_without_autograd(
            grad_output, grad_hn, *nested[:-2], states, *nested[-2:], timespans_grad
        )
        return (*grads, *parameters, grad_w, grad_b, grad_recurrent_w)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    backward = staticmethod(_no_second_derivative)


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
            cell plus n, or the units of the backbone.
        masks: none, or for each cell which weights of ``ff1`` and ``ff2`` exist, ``[n, K]``, 0 or
            1. The others are never read and have a gradient of exactly 0. With a backbone none.
        layer_sizes: neurons of each cell; the last one gives the output.
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

    Returns:
        ``(output, hn)``: ``[B, T, M]`` (or ``[B, M]``) with ``M = layer_sizes[-1]``, and the
        state after the last valid step, ``[B, N]``. Both are differentiable once, and
        deterministic: the same call with the same number of threads gives the same bits.

    Raises:
        ValueError: if a shape or a value is wrong.
        TypeError: if a dtype or a device is wrong.
        NotImplementedError: if a second derivative is asked for.

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
    dtype = x.dtype
    weight_dtype = parameters[0].dtype
    if dtype in HALF_DTYPES or weight_dtype in HALF_DTYPES:
        output, hn = cfc(
            *(widen(x), widen(h0), widen(timespans), lengths, [widen(p) for p in parameters]),
            *([widen(m) for m in masks], layer_sizes, backbone_layers, mode, activation),
            *(widen(dropout), return_sequences, time_major),
            memory and [widen(p) for p in memory],
        )
        if torch.is_autocast_enabled(x.device.type):
            return output, hn
        return output.to(dtype), hn.to(dtype)
    if mode not in _MODES or activation not in _ACTIVATIONS:
        check_cfc_arguments(
            *(x, h0, timespans, lengths, parameters, masks, layer_sizes, backbone_layers),
            *(mode, activation, dropout, memory),
        )
    for mask in masks:
        if mask.dtype != dtype:
            masks = [m.to(dtype) for m in masks]
            break

    cell = NO_MEMORY if memory is None else memory
    tracing = torch._C._get_tracing_state() is not None  # by torch.jit.trace
    compiling = tracing or torch.compiler.is_compiling()
    # The check of a trace, which runs without gradients, must see the same call.
    needs_grad = (tracing or torch.is_grad_enabled()) and (
        x.requires_grad
        or any(p.requires_grad for p in parameters)
        or (memory is not None and any(p.requires_grad for p in memory))
        or (h0 is not None and h0.requires_grad)
        or (timespans is not None and timespans.requires_grad)
    )
    try:
        # In forward mode a tangent would be lost silently; autograd functions refuse it.
        if compiling or (not needs_grad and forward_ad._current_level < 0):
            forward = _forward if compiling else _forward_without_autograd
            output, hn, _ = forward(
                x,
                h0,
                timespans,
                lengths,
                parameters,
                masks,
                layer_sizes,
                backbone_layers,
                _MODES[mode],
                _ACTIVATIONS[activation],
                dropout,
                *cell,
                return_sequences,
                time_major,
                needs_grad,
            )
            return output, hn
        function: Any = (
            _TransformableCfC if torch._C._are_functorch_transforms_active() else _EagerCfC
        )
        codes = _MODES[mode], _ACTIVATIONS[activation]
        output, hn, *_ = function.apply(
            (len(parameters), len(masks)),
            (tuple(layer_sizes), backbone_layers, *codes, return_sequences, time_major, needs_grad),
            *(x, h0, timespans, lengths, dropout, *cell, *parameters, *masks),
        )
    except RuntimeError:
        # The operator has refused its arguments. Only now is it worth finding out why, in the
        # words of this function.
        if not compiling:
            check_has_kernels("cfc_forward", x)
            check_cfc_arguments(
                *(x, h0, timespans, lengths, parameters, masks, layer_sizes, backbone_layers),
                *(mode, activation, dropout, memory),
            )
        raise
    return output, hn
