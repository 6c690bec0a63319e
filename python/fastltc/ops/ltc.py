"""The LTC operators: fake kernels, autograd, autocast, and the function that modules call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from fastltc._extension import load_operators
from fastltc.ops.checks import check_has_kernels, check_ltc_arguments, check_same_device

__all__ = ["HALF_DTYPES", "LTC_PARAMETERS", "NO_MEMORY", "ltc", "widen"]

load_operators()
_forward = torch.ops.fastltc.ltc_forward.default
_backward = torch.ops.fastltc.ltc_backward.default

LTC_PARAMETERS = (
    "gleak",
    "vleak",
    "cm",
    "sigma",
    "mu",
    "w",
    "erev",
    "sensory_sigma",
    "sensory_mu",
    "sensory_w",
    "sensory_erev",
    "input_w",
    "input_b",
    "output_w",
    "output_b",
)
"""Names of the parameters, in the order in which the operators take them."""

_TENSORS = 4 + len(LTC_PARAMETERS) + 3 + 2
"""The leading tensor arguments of ``ltc_forward``: data, parameters, memory and synapse lists."""

NO_MEMORY = (None, None, None)
"""What the operators take for the memory cell where there is none."""

HALF_DTYPES = (torch.float16, torch.bfloat16)
"""Dtypes that are stored only; what they take part in is computed in float32."""


def _keeps_rates(x: Tensor, neurons: int, synapses: Tensor) -> bool:
    """As ltc_keeps_rates in csrc/cuda/ltc.h: dense networks on CUDA devices."""
    if x.device.type != "cuda" or x.dtype == torch.float64 or neurons > 256:
        return False
    count = synapses.shape[0] - neurons - 1
    return count > 4096 and 4 * count >= neurons * neurons


@torch.library.register_fake("fastltc::ltc_forward")
def _forward_fake(
    x: Tensor,
    h0: Tensor | None,
    timespans: Tensor | None,
    lengths: Tensor | None,
    gleak: Tensor,
    vleak: Tensor,
    cm: Tensor,
    sigma: Tensor,
    mu: Tensor,
    w: Tensor,
    erev: Tensor,
    sensory_sigma: Tensor,
    sensory_mu: Tensor,
    sensory_w: Tensor,
    sensory_erev: Tensor,
    input_w: Tensor | None,
    input_b: Tensor | None,
    output_w: Tensor | None,
    output_b: Tensor | None,
    memory_w: Tensor | None,
    memory_b: Tensor | None,
    memory_recurrent_w: Tensor | None,
    synapses: Tensor,
    sensory_synapses: Tensor,
    output_size: int,
    ode_unfolds: int,
    epsilon: float,
    softplus: bool,
    return_sequences: bool,
    time_major: bool,
    save_states: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    check_same_device(
        "fastltc::ltc_forward",
        x,
        *(h0, timespans, lengths, gleak, vleak, cm, sigma, mu, w, erev),
        *(sensory_sigma, sensory_mu, sensory_w, sensory_erev),
        *(input_w, input_b, output_w, output_b, memory_w, memory_b, memory_recurrent_w),
        *(synapses, sensory_synapses),
    )
    batch, time, _ = x.shape
    # Stacked parameters are those of several layers beside each other.
    neurons = cm.numel()
    output_size = output_size * cm.shape[0] if cm.dim() == 2 else output_size
    if not return_sequences:
        output = x.new_empty(batch, output_size)
    elif time_major:
        output = x.new_empty(time, batch, output_size).transpose(0, 1)
    else:
        output = x.new_empty(batch, time, output_size)
    # Before every unfold and after the last one; what a memory cell keeps.
    of_step = ode_unfolds if memory_w is None else ode_unfolds + 6
    if memory_w is None and cm.dim() == 1 and _keeps_rates(x, neurons, synapses):
        of_step = 2 * ode_unfolds
    states = x.new_empty((time * of_step + 1) * neurons * batch if save_states else 0)
    return output, x.new_empty(batch, neurons if memory_w is None else 2 * neurons), states


@torch.library.register_fake("fastltc::ltc_backward")
def _backward_fake(
    grad_output: Tensor | None,
    grad_hn: Tensor | None,
    x: Tensor,
    h0: Tensor | None,
    timespans: Tensor | None,
    lengths: Tensor | None,
    gleak: Tensor,
    vleak: Tensor,
    cm: Tensor,
    sigma: Tensor,
    mu: Tensor,
    w: Tensor,
    erev: Tensor,
    sensory_sigma: Tensor,
    sensory_mu: Tensor,
    sensory_w: Tensor,
    sensory_erev: Tensor,
    input_w: Tensor | None,
    input_b: Tensor | None,
    output_w: Tensor | None,
    output_b: Tensor | None,
    memory_w: Tensor | None,
    memory_b: Tensor | None,
    memory_recurrent_w: Tensor | None,
    synapses: Tensor,
    sensory_synapses: Tensor,
    states: Tensor,
    output_size: int,
    ode_unfolds: int,
    epsilon: float,
    softplus: bool,
    return_sequences: bool,
    time_major: bool,
    timespans_grad: bool,
) -> tuple[Tensor, ...]:
    check_same_device(
        "fastltc::ltc_backward",
        x,
        *(grad_output, grad_hn, h0, timespans, lengths, gleak, vleak, cm, sigma, mu, w, erev),
        *(sensory_sigma, sensory_mu, sensory_w, sensory_erev),
        *(input_w, input_b, output_w, output_b, memory_w, memory_b, memory_recurrent_w),
        *(synapses, sensory_synapses, states),
    )
    batch, time, inputs = x.shape
    if time_major:
        grad_x = x.new_empty(time, batch, inputs).transpose(0, 1)
    else:
        grad_x = x.new_empty(batch, time, inputs)

    def like(tensor: Tensor | None) -> Tensor:
        return x.new_empty(0 if tensor is None else tensor.shape)

    parameters = (
        *(gleak, vleak, cm, sigma, mu, w, erev),
        *(sensory_sigma, sensory_mu, sensory_w, sensory_erev),
        *(input_w, input_b, output_w, output_b, memory_w, memory_b, memory_recurrent_w),
    )
    return (
        grad_x,
        like(h0),
        like(timespans if timespans_grad else None),
        *(like(parameter) for parameter in parameters),
    )


# The autograd kernel, which register_autograd puts in Python, costs as much as the rest of a call.
def _forward_without_autograd(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    with torch._C._AutoDispatchBelowAutograd():
        return _forward(*arguments)


def _backward_without_autograd(*arguments: Any) -> tuple[Tensor, ...]:
    with torch._C._AutoDispatchBelowAutograd():
        return _backward(*arguments)


def _save(ctx: Any, tensors: Sequence[Tensor | None], states: Tensor, options: Any) -> None:
    ctx.save_for_backward(*tensors, states)
    ctx.options = options
    ctx.set_materialize_grads(False)


def _gradients(
    ctx: Any, grad_output: Tensor | None, grad_hn: Tensor | None
) -> tuple[Tensor | None, ...]:
    """Return the gradient of every argument of ``ltc_forward``."""
    *tensors, states = ctx.saved_tensors
    *options, save_states = ctx.options
    if not save_states:
        raise RuntimeError(
            "fastltc::ltc_forward: expected save_states=True where a gradient is asked for, "
            "got save_states=False"
        )
    if grad_output is None and grad_hn is None:
        return (None,) * (_TENSORS + len(ctx.options))
    _, h0, timespans, _, *parameters = tensors[:-2]
    timespans_grad = timespans is not None and ctx.needs_input_grad[2]
    if not torch.is_grad_enabled():
        backward = _backward_without_autograd
    elif torch._C._are_functorch_transforms_active():
        backward = _TransformableBackward.apply
    else:
        backward = _backward
    grad_x, grad_h0, grad_timespans, *grads = backward(
        grad_output, grad_hn, *tensors, states, *options, timespans_grad
    )
    return (
        grad_x,
        None if h0 is None else grad_h0,
        grad_timespans if timespans_grad else None,
        None,
        *(None if p is None else g for p, g in zip(parameters, grads, strict=True)),
        *(None,) * (2 + len(ctx.options)),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    states = output[2]
    _save(ctx, inputs[:_TENSORS], states, inputs[_TENSORS:])
    ctx.mark_non_differentiable(states)


def _operator_gradients(
    ctx: Any, grad_output: Tensor | None, grad_hn: Tensor | None, grad_states: Tensor | None
) -> tuple[Tensor | None, ...]:
    return _gradients(ctx, grad_output, grad_hn)


def _no_second_derivative(ctx: Any, *grads: Tensor | None) -> None:
    raise NotImplementedError(
        "fastltc: the second derivative of the LTC layer is not implemented (the backward of "
        "fastltc::ltc_backward was asked for, as by create_graph=True); use fastltc.reference.ltc "
        "where it is needed"
    )


torch.library.register_autograd(
    "fastltc::ltc_forward", _operator_gradients, setup_context=_setup_context
)
torch.library.register_autograd("fastltc::ltc_backward", _no_second_derivative)
# Under autocast the layer runs, and returns, float32: a rounding to half in every solver step
# would add up.
for _device in ("cpu", "cuda"):
    torch.library.register_autocast("fastltc::ltc_forward", _device, torch.float32)


class _EagerLTC(torch.autograd.Function):
    """``ltc_forward`` with gradients, for eager mode.

    What ``register_autograd`` makes does the same in some 150 us more.
    """

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        output, hn, states = _forward_without_autograd(*arguments)
        _save(ctx, arguments[:_TENSORS], states, arguments[_TENSORS:])
        return output, hn

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return _gradients(ctx, *grads)


class _TransformableLTC(torch.autograd.Function):
    """``ltc_forward`` inside ``torch.func.grad`` and its like, which takes 20 us more."""

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        return _forward_without_autograd(*arguments)

    setup_context = staticmethod(_setup_context)
    backward = staticmethod(_operator_gradients)


class _TransformableBackward(torch.autograd.Function):
    """``ltc_backward`` there."""

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        return _backward_without_autograd(*arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    backward = staticmethod(_no_second_derivative)


def widen(tensor: Tensor | None) -> Any:
    """Return float32 for half types, and anything else as it is.

    Nothing is lost in the way back: autograd rounds the gradients where it casts.
    """
    return tensor.float() if tensor is not None and tensor.dtype in HALF_DTYPES else tensor


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
        synapses: int32, as :func:`fastltc.nn.synapse_list` makes it from the ``[N, N]`` mask, or
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

    Returns:
        ``(output, hn)``: ``[B, T, M]`` (or ``[B, M]``) and the state after the last valid step,
        ``[B, N]``. Both are differentiable once, and deterministic: the same call with the same
        number of threads gives the same bits. Whether a gradient is asked for may change the
        rounding of small batches, which have kernels of their own for inference.

    Raises:
        ValueError: if a shape or a value is wrong.
        TypeError: if a dtype or a device is wrong.
        NotImplementedError: if a second derivative is asked for.

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
    dtype = x.dtype
    weight_dtype = parameters[0].dtype  # type: ignore[union-attr]  # gleak is never None
    if dtype in HALF_DTYPES or weight_dtype in HALF_DTYPES:
        output, hn = ltc(
            *(widen(x), widen(h0), widen(timespans), lengths, [widen(p) for p in parameters]),
            synapses,
            sensory_synapses,
            output_size,
            ode_unfolds,
            epsilon,
            softplus,
            return_sequences,
            time_major,
            memory and [widen(p) for p in memory],
        )
        if torch.is_autocast_enabled(x.device.type):
            return output, hn
        return output.to(dtype), hn.to(dtype)

    cell = NO_MEMORY if memory is None else memory
    tracing = torch._C._get_tracing_state() is not None  # by torch.jit.trace
    # The check of a trace, which runs without gradients, must see the same call.
    needs_grad = (tracing or torch.is_grad_enabled()) and (
        x.requires_grad
        or any(p.requires_grad for p in (h0, timespans, *parameters, *cell) if p is not None)
    )
    arguments = (
        x,
        h0,
        timespans,
        lengths,
        *parameters,
        *cell,
        synapses,
        sensory_synapses,
        output_size,
        ode_unfolds,
        epsilon,
        softplus,
        return_sequences,
        time_major,
        needs_grad,
    )
    if tracing or torch.compiler.is_compiling():
        output, hn, _ = _forward(*arguments)
        return output, hn
    try:
        # In forward mode a tangent would be lost silently; autograd functions refuse it.
        if not needs_grad and forward_ad._current_level < 0:
            output, hn, _ = _forward_without_autograd(*arguments)
        elif torch._C._are_functorch_transforms_active():
            output, hn, _ = _TransformableLTC.apply(*arguments)
        else:
            output, hn = _EagerLTC.apply(*arguments)
    except RuntimeError:
        # The operator has refused its arguments. Only now is it worth finding out why, in the
        # words of this function.
        check_has_kernels("ltc_forward", x)
        check_ltc_arguments(
            *(x, h0, timespans, lengths, parameters, synapses, sensory_synapses, output_size),
            ode_unfolds=ode_unfolds,
            memory=memory,
        )
        raise
    return output, hn
