"""What the operators of all layers have in common: one layer over a batch of sequences.

A layer's forward operator takes ``x, h0, timespans, lengths, resets``, the lists ``parameters`` and
``memory``, two more tensors or lists of tensors that tell how the layer is connected, the layer's
options, and ``reset_to_zero, return_sequences, time_major, save_states``. It returns the output,
the last state and what the backward operator needs of the steps. That one takes the gradients of
the first two, the third, the same arguments but the last, and whether time steps need a gradient
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
from fastltc.ops.batching import TENSORS, below_autograd, flatten, nested, run_in_vmap
from fastltc.ops.errors import check_same_device, reraise
from fastltc.ops.gradients import (
    Eager,
    Transformable,
    is_tracked,
    registered_gradients,
    registered_second_derivatives,
    save_arguments,
    save_for_second_derivatives,
)
from fastltc.ops.onnx_export import check_translations, writes_steps

load_operators()

HALF_DTYPES = (torch.float16, torch.bfloat16)
"""Dtypes that are stored only; what they take part in is computed in float32."""


def compute_in_float32_under_autocast(operator: str) -> None:
    """Have an operator run, and return, float32 under autocast.

    A rounding to half in every step of a solver would add up.
    """
    for device in ("cpu", "cuda"):
        torch.library.register_autocast(operator, device, torch.float32)


def _widened(value: Any) -> Any:
    """Return float32 for half types, also in a list, and anything else as it is.

    Nothing is lost in the way back: autograd rounds the gradients where it casts.
    """
    if isinstance(value, (list, tuple)):
        return [_widened(entry) for entry in value]
    return value.float() if isinstance(value, Tensor) and value.dtype in HALF_DTYPES else value


def _not_empty(argument: Any, x: Tensor) -> Any:
    """Return a list with something in it, or the argument as it is; see :func:`is_none`."""
    return [x.new_empty(0)] if isinstance(argument, (list, tuple)) and not argument else argument


def is_none(tensors: Sequence[Tensor]) -> bool:
    """Whether a list is none: also one tensor without elements.

    AOTInductor calls operators with None in the place of an empty list.
    """
    return not tensors or (len(tensors) == 1 and 0 in tensors[0].shape)


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
    resets: Tensor | None = None
    reset_to_zero: bool = False


class SequenceOperator:
    """The operators of one layer, forward and backward.

    ``name`` is theirs without ``_forward`` and ``_backward``. ``sizes`` returns N, M and how many
    values a sample keeps of a step for the backward pass, besides its first state; it is given x,
    timespans and the arguments from ``parameters`` on up to the layer's last option. ``reference``
    is the layer in plain PyTorch: it is given the list of the forward operator's arguments up to
    ``return_sequences`` and returns the output and the last state. ``axes`` is how many the first
    parameter has; with one more they are those of layers beside each other. ``names`` are those of
    the first parameters. ``repeat`` returns the connections of so many layers, given their number,
    inputs, stacked parameters and the connections of one; without, layers share them, and run
    beside each other on the CPU only.
    """

    def __init__(
        self,
        name: str,
        sizes: Callable[..., tuple[int, int, int]],
        reference: Callable[[Sequence[Any]], tuple[Tensor, Tensor]],
        *,
        axes: int,
        names: Sequence[str] = (),
        repeat: Callable[..., Sequence[Any]] | None = None,
    ) -> None:
        self.forward: Any = getattr(torch.ops.fastltc, f"{name}_forward").default
        self.backward: Any = getattr(torch.ops.fastltc, f"{name}_backward").default
        forward, backward = f"fastltc::{name}_forward", f"fastltc::{name}_backward"
        self._sizes, self.reference, self._names = sizes, reference, names
        self.axes, self.repeat = axes, repeat
        torch.library.register_fake(forward, self._forward_fake)
        torch.library.register_fake(backward, self._backward_fake)
        torch.library.register_autograd(
            forward, registered_gradients, setup_context=self._setup_context
        )
        torch.library.register_autograd(
            backward,
            registered_second_derivatives,
            setup_context=save_for_second_derivatives(self),
        )
        compute_in_float32_under_autocast(forward)

    def _forward_fake(
        self, x: Tensor, h0: Tensor | None, timespans: Tensor | None, *rest: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        check_same_device(self.forward, x, (x, h0, timespans, *rest), self._names)
        check_translations()
        _, _, parameters, memory, *own, _, return_sequences, time_major, save_states = rest
        memory = () if is_none(memory) else memory
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
        resets: Tensor | None,
        parameters: Sequence[Tensor],
        memory: Sequence[Tensor],
        *rest: Any,
    ) -> tuple[Tensor, Tensor, Tensor, list[Tensor], list[Tensor]]:
        data = x, h0, timespans, lengths, resets, parameters, memory
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
        flat, counts = flatten(inputs[:TENSORS])
        save_arguments(ctx, self, counts, inputs[TENSORS:], output[2], flat)
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
        x, h0, timespans, lengths, memory, return_sequences, time_major, resets, to_zero = sequences
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
            resets,
            parameters,
            memory,
            *connections,
            *options,
            to_zero,
            return_sequences,
            time_major,
            needs_grad,
        )
        if tracing or torch.compiler.is_compiling():
            if writes_steps(x):
                return self.reference(arguments[:-2])
            if not tracing and torch.compiler.is_exporting():
                arguments = tuple(_not_empty(argument, x) for argument in arguments)
            output, hn, _ = self.forward(*arguments)
            return output, hn
        if forward_ad._current_level >= 0:
            # Tangents may be there.
            return self.reference(arguments[:-2])
        try:
            if torch._C._are_functorch_transforms_active():
                flat, counts = flatten(arguments[:TENSORS])
                tracked = torch.is_grad_enabled() and any(map(is_tracked, flat))
                rest = *arguments[TENSORS:-1], tracked

                def apply(options: Any, *flat: Any) -> tuple[Any, ...]:
                    if tracked:
                        return *Eager.apply(self, counts, options, *flat), None
                    return below_autograd(self.forward, *nested(flat, counts), *options)

                results = run_in_vmap(self, counts, rest, flat, apply)
                if results is None:
                    results = Transformable.apply(self, counts, rest, *flat)
                output, hn = results[:2]
            elif needs_grad:
                flat, counts = flatten(arguments[:TENSORS])
                output, hn = Eager.apply(self, counts, arguments[TENSORS:], *flat)
            else:
                with torch._C._AutoDispatchBelowAutograd():
                    output, hn, _ = self.forward._op(*arguments)
        except RuntimeError as error:
            reraise(error, arguments, self.forward, x, self._names)
        return output, hn
