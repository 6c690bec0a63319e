"""What the operators of all layers have in common: one layer over a batch of sequences.

A layer's forward operator takes ``x, h0, timespans, lengths``, the lists ``parameters`` and
``memory``, two more tensors or lists of tensors that tell how the layer is connected, the layer's
options, and ``return_sequences, time_major, save_states``. It returns the output, the last state
and what the backward operator needs of the steps. That one takes the gradients of the first two,
the third, the same arguments but the last, and whether time steps need a gradient
(``csrc/torch/sequence_operator.h``).

:class:`SequenceOperator` registers both with PyTorch's subsystems and calls them; ``ops/ltc.py``
and ``ops/cfc.py`` say what is special.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from fastltc._extension import load_operators
from fastltc.ops.errors import check_same_device, no_second_derivative, reraise

load_operators()

HALF_DTYPES = (torch.float16, torch.bfloat16)
"""Dtypes that are stored only; what they take part in is computed in float32."""

_DATA, _TENSORS = 4, 8
"""How many arguments of a forward operator are data, and are tensors or lists of tensors."""


def below_autograd(operator: Any, *arguments: Any) -> Any:
    """Call an operator without the autograd kernel that ``register_autograd`` puts in Python.

    It costs as much as the rest of a call.
    """
    with torch._C._AutoDispatchBelowAutograd():
        # What a call of the overload calls: a frame less.
        return operator._op(*arguments)


def compute_in_float32_under_autocast(operator: str) -> None:
    """Have an operator run, and return, float32 under autocast.

    A rounding to half in every step of a solver would add up.
    """
    for device in ("cpu", "cuda"):
        torch.library.register_autocast(operator, device, torch.float32)


def _flat(tensors: Sequence[Any]) -> tuple[list[Any], tuple[int, int, int | None]]:
    """Return the tensors among the first arguments, and how many are in each list.

    Autograd functions see no tensors inside lists.
    """
    *data, parameters, memory, first, second = tensors
    if isinstance(first, Tensor):
        return [*data, *parameters, *memory, first, second], (len(parameters), len(memory), None)
    counts = len(parameters), len(memory), len(first)
    return [*data, *parameters, *memory, *first, second], counts


def _nested(flat: Sequence[Any], counts: tuple[int, int, int | None]) -> list[Any]:
    """Return the arguments again."""
    parameters, memory, first = counts
    end, flat = _DATA + parameters, list(flat)
    nested = [*flat[:_DATA], flat[_DATA:end], flat[end : end + memory]]
    rest = flat[end + memory :]
    return [*nested, *rest] if first is None else [*nested, rest[:-1], rest[-1]]


def _widened(value: Any) -> Any:
    """Return float32 for half types, also in a list, and anything else as it is.

    Nothing is lost in the way back: autograd rounds the gradients where it casts.
    """
    if isinstance(value, (list, tuple)):
        return [_widened(entry) for entry in value]
    return value.float() if isinstance(value, Tensor) and value.dtype in HALF_DTYPES else value


def _new_sequence(x: Tensor, channels: int, time_major: bool) -> Tensor:
    batch, time, _ = x.shape
    if time_major:
        return x.new_empty(time, batch, channels).transpose(0, 1)
    return x.new_empty(batch, time, channels)


class Sequences(NamedTuple):
    """A batch of sequences, and how the results are laid out: what every layer is run over.

    See :func:`fastltc.ops.ltc` for all of it. A new argument of a sequence is a field here.
    """

    x: Tensor
    h0: Any = None
    timespans: Tensor | None = None
    lengths: Tensor | None = None
    memory: Sequence[Tensor] = ()
    return_sequences: bool = True
    time_major: bool = False


class SequenceOperator:
    """The operators of one layer, forward and backward.

    ``name`` is theirs without ``_forward`` and ``_backward``, and that of the reference; ``layer``
    is what errors call the layer. ``sizes`` returns N, M and how many values a sample keeps of a
    step for the backward pass, besides its first state; it is given x, timespans and the arguments
    from ``parameters`` on up to the layer's last option. ``names`` are those of the first
    parameters.
    """

    def __init__(
        self,
        name: str,
        layer: str,
        sizes: Callable[..., tuple[int, int, int]],
        names: Sequence[str] = (),
    ) -> None:
        self.forward: Any = getattr(torch.ops.fastltc, f"{name}_forward").default
        self.backward: Any = getattr(torch.ops.fastltc, f"{name}_backward").default
        forward, backward = f"fastltc::{name}_forward", f"fastltc::{name}_backward"
        self._sizes, self._names = sizes, names
        self.no_second_derivative = no_second_derivative(
            f"the {layer} layer", backward, f"fastltc.reference.{name}"
        )
        torch.library.register_fake(forward, self._forward_fake)
        torch.library.register_fake(backward, self._backward_fake)
        torch.library.register_autograd(
            forward, _registered_gradients, setup_context=self._setup_context
        )
        torch.library.register_autograd(backward, self.no_second_derivative)
        compute_in_float32_under_autocast(forward)

    def _forward_fake(
        self, x: Tensor, h0: Tensor | None, timespans: Tensor | None, *rest: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        check_same_device(self.forward, x, (x, h0, timespans, *rest), self._names)
        _, parameters, memory, *own, return_sequences, time_major, save_states = rest
        batch, time, _ = x.shape
        neurons, outputs, kept = self._sizes(x, timespans, parameters, memory, *own)
        if return_sequences:
            output = _new_sequence(x, outputs, time_major)
        else:
            output = x.new_empty(batch, outputs)
        states = x.new_empty(batch * (neurons + time * kept) if save_states else 0)
        return output, x.new_empty(batch, 2 * neurons if memory else neurons), states

    def _backward_fake(
        self,
        grad_output: Tensor | None,
        grad_hn: Tensor | None,
        states: Tensor,
        x: Tensor,
        h0: Tensor | None,
        timespans: Tensor | None,
        lengths: Tensor | None,
        parameters: Sequence[Tensor],
        memory: Sequence[Tensor],
        *rest: Any,
    ) -> tuple[Tensor, Tensor, Tensor, list[Tensor], list[Tensor]]:
        data = x, h0, timespans, lengths, parameters, memory
        given = grad_output, grad_hn, states, *data, *rest
        check_same_device(self.backward, x, given, self._names)
        *_, time_major, timespans_grad = rest
        return (
            _new_sequence(x, x.shape[2], time_major),
            x.new_empty(0 if h0 is None else h0.shape),
            x.new_empty(timespans.shape if timespans is not None and timespans_grad else 0),
            [x.new_empty(parameter.shape) for parameter in parameters],
            [x.new_empty(parameter.shape) for parameter in memory],
        )

    def _setup_context(self, ctx: Any, inputs: Sequence[Any], output: Sequence[Tensor]) -> None:
        flat, counts = _flat(inputs[:_TENSORS])
        _save(ctx, self, counts, inputs[_TENSORS:], output[2], flat)
        ctx.mark_non_differentiable(output[2])

    def run(
        self,
        sequences: Sequences,
        parameters: Sequence[Tensor],
        connections: tuple[Any, Any],
        options: tuple[Any, ...],
    ) -> tuple[Tensor, Tensor]:
        """Run the layer.

        Args:
            sequences: what it is run over.
            parameters: those that there are.
            connections: the operator's arguments behind ``memory`` that are tensors.
            options: those that are none.

        Returns:
            The output and the last state.
        """
        x, h0, timespans, lengths, memory, return_sequences, time_major = sequences
        dtype, weight_dtype = x.dtype, parameters[0].dtype
        if dtype in HALF_DTYPES or (weight_dtype != dtype and weight_dtype in HALF_DTYPES):
            widened = Sequences(*map(_widened, sequences))
            output, hn = self.run(widened, _widened(parameters), _widened(connections), options)
            if torch.is_autocast_enabled(x.device.type):
                return output, hn
            return output.to(dtype), hn.to(dtype)
        tracing = torch._C._get_tracing_state() is not None  # by torch.jit.trace
        # The check of a trace, which runs without gradients, must see the same call.
        needs_grad = (tracing or torch.is_grad_enabled()) and (
            x.requires_grad
            or any(p is not None and p.requires_grad for p in parameters)
            or any(p.requires_grad for p in memory)
            or (h0 is not None and h0.requires_grad)
            or (timespans is not None and timespans.requires_grad)
        )
        arguments = (
            x,
            h0,
            timespans,
            lengths,
            parameters,
            memory,
            *connections,
            *options,
            return_sequences,
            time_major,
            needs_grad,
        )
        if tracing or torch.compiler.is_compiling():
            output, hn, _ = self.forward(*arguments)
            return output, hn
        try:
            # In forward mode a tangent would be lost silently; autograd functions refuse it.
            if not needs_grad and forward_ad._current_level < 0:
                with torch._C._AutoDispatchBelowAutograd():
                    output, hn, _ = self.forward._op(*arguments)
            else:
                functorch = torch._C._are_functorch_transforms_active()
                function: Any = _Transformable if functorch else _Eager
                flat, counts = _flat(arguments[:_TENSORS])
                output, hn, *_ = function.apply(self, counts, arguments[_TENSORS:], *flat)
        except RuntimeError as error:
            reraise(error, arguments, self.forward, x, self._names)
        return output, hn


def _save(
    ctx: Any,
    operator: SequenceOperator,
    counts: tuple[int, int, int | None],
    options: Sequence[Any],
    states: Tensor,
    flat: Sequence[Tensor | None],
) -> None:
    ctx.save_for_backward(states, *flat)
    ctx.operator, ctx.counts, ctx.options = operator, counts, options
    ctx.set_materialize_grads(False)


def _gradients(
    ctx: Any, timespans_grad: bool, grad_output: Tensor | None, grad_hn: Tensor | None
) -> list[Tensor | None]:
    """Return the gradients of all tensors."""
    operator: SequenceOperator = ctx.operator
    states, *flat = ctx.saved_tensors
    *options, save_states = ctx.options
    if not save_states:
        raise RuntimeError(
            f"{operator.forward._schema.name}: expected save_states=True where a gradient is asked "
            "for, got save_states=False"
        )
    if grad_output is None and grad_hn is None:
        return [None] * len(flat)
    _, h0, timespans, *_ = flat
    timespans_grad = timespans_grad and timespans is not None
    given = grad_output, grad_hn, states
    grads: Any
    learned: list[Tensor]
    if torch.is_grad_enabled() and torch._C._are_functorch_transforms_active():
        grad_x, grad_h0, grad_timespans, *learned = _TransformableBackward.apply(
            operator, ctx.counts, (*options, timespans_grad), *given, *flat
        )
    else:
        arguments = *given, *_nested(flat, ctx.counts), *options, timespans_grad
        if torch.is_grad_enabled():
            grads = operator.backward(*arguments)
        else:
            grads = below_autograd(operator.backward, *arguments)
        grad_x, grad_h0, grad_timespans, parameters, memory = grads
        learned = [*parameters, *memory]
    return [
        grad_x,
        None if h0 is None else grad_h0,
        grad_timespans if timespans_grad else None,
        None,
        *learned,
        *(None,) * (len(flat) - _DATA - len(learned)),
    ]


def _registered_gradients(
    ctx: Any, grad_output: Tensor | None, grad_hn: Tensor | None, grad_states: Tensor | None
) -> tuple[Any, ...]:
    grads = _gradients(ctx, ctx.needs_input_grad[2], grad_output, grad_hn)
    return (*_nested(grads, ctx.counts), *(None,) * len(ctx.options))


class _Eager(torch.autograd.Function):
    """A forward operator with gradients, for eager mode.

    What ``register_autograd`` makes does the same in some 150 us more.
    """

    @staticmethod
    def forward(
        ctx: Any, operator: SequenceOperator, counts: Any, options: Any, *flat: Any
    ) -> tuple[Tensor, Tensor]:
        output, hn, states = below_autograd(operator.forward, *_nested(flat, counts), *options)
        _save(ctx, operator, counts, options, states, flat)
        return output, hn

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return (None, None, None, *_gradients(ctx, ctx.needs_input_grad[5], *grads[:2]))


class _Transformable(torch.autograd.Function):
    """The same inside ``torch.func.grad`` and its like, which takes 20 us more."""

    @staticmethod
    def forward(
        operator: SequenceOperator, counts: Any, options: Any, *flat: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        return below_autograd(operator.forward, *_nested(flat, counts), *options)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        operator, counts, options, *flat = inputs
        _save(ctx, operator, counts, options, output[2], flat)
        ctx.mark_non_differentiable(output[2])

    backward = staticmethod(_Eager.backward)


class _TransformableBackward(torch.autograd.Function):
    """A backward operator there."""

    @staticmethod
    def forward(
        operator: SequenceOperator, counts: Any, options: Any, *flat: Any
    ) -> tuple[Tensor, ...]:
        arguments = *flat[:3], *_nested(flat[3:], counts), *options
        *grads, parameters, memory = below_autograd(operator.backward, *arguments)
        return (*grads, *parameters, *memory)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.operator = inputs[0]

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        ctx.operator.no_second_derivative(ctx, *grads)
