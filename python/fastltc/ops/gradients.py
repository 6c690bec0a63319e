"""Derivatives of a layer over a batch of sequences, in eager mode and inside ``torch.func``.

First derivatives in reverse mode come of the backward operators. Rarer ones come of the layer in
plain PyTorch, ``SequenceOperator.reference``: it takes the time that the layer would take without
kernels, and is differentiable any number of times. The tensors are in one list (ops/batching.py).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fastltc.ops.batching import (
    DATA,
    FLOATING,
    TENSORS,
    Counts,
    Entries,
    batched_backward,
    batched_forward,
    below_autograd,
    flatten,
    nested,
    one_by_one,
)


def save_arguments(
    ctx: Any,
    operator: Any,
    counts: Counts,
    options: Sequence[Any],
    states: Tensor,
    flat: Sequence[Tensor | None],
) -> None:
    """Save what the backward pass takes."""
    ctx.save_for_backward(states, *flat)
    ctx.operator, ctx.counts, ctx.options = operator, counts, options
    ctx.set_materialize_grads(False)


def _gradients(
    ctx: Any, timespans_grad: bool, grad_output: Tensor | None, grad_hn: Tensor | None
) -> list[Tensor | None]:
    """Return the gradients of all tensors."""
    operator: Any = ctx.operator
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
    options = *options, timespans_grad
    grads: Sequence[Tensor]
    if torch.is_grad_enabled() or torch._C._are_functorch_transforms_active():
        grads = _Backward.apply(operator, ctx.counts, options, *given, *flat)
    else:
        grads = _run_backward(operator, ctx.counts, options, given, flat)
    grad_x, grad_h0, grad_timespans, *learned = grads
    return [
        grad_x,
        None if h0 is None else grad_h0,
        grad_timespans if timespans_grad else None,
        *(None,) * (DATA - FLOATING),
        *learned,
        *(None,) * (len(flat) - DATA - len(learned)),
    ]


def _run_backward(
    operator: Any, counts: Counts, options: Any, given: Sequence[Any], flat: Sequence[Any]
) -> tuple[Tensor, ...]:
    arguments = *given, *nested(flat, counts), *options
    *grads, parameters, memory = below_autograd(operator.backward, *arguments)
    return *grads, *parameters, *memory


def registered_gradients(
    ctx: Any, grad_output: Tensor | None, grad_hn: Tensor | None, grad_states: Tensor | None
) -> tuple[Any, ...]:
    """Do what ``register_autograd`` wants of a forward operator."""
    grads = _gradients(ctx, ctx.needs_input_grad[2], grad_output, grad_hn)
    return (*nested(grads, ctx.counts), *(None,) * len(ctx.options))


def _each_entry(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Have a backward run once for each entry of gradients with ``is_grads_batched=True``.

    Autograd's own vmap, which that is, knows no batching rules of autograd functions.
    """
    is_batched = torch._C._functorch.is_legacy_batchedtensor

    @functools.wraps(backward)
    def run(ctx: Any, *grads: Tensor | None) -> Any:
        if not any(grad is not None and is_batched(grad) for grad in grads):
            return backward(ctx, *grads)
        level = torch._C._vmapmode_increment_nesting() - 1
        torch._C._vmapmode_decrement_nesting()
        entries: list[Any] = list(grads)
        dims: list[int | None] = [None] * len(grads)
        count = 0
        for i, grad in enumerate(grads):
            if grad is not None and is_batched(grad):
                entries[i], dims[i] = torch._remove_batch_dim(grad, level, 1, 0), 0
                count = entries[i].shape[0]
        results = one_by_one(lambda *grads: backward(ctx, *grads), count, dims, entries)
        return tuple(r if r is None else torch._add_batch_dim(r, 0, level) for r in results)

    return run


class Eager(torch.autograd.Function):
    """A forward operator with gradients, for eager mode.

    What ``register_autograd`` makes does the same in some 150 us more.
    """

    @staticmethod
    def forward(
        ctx: Any, operator: Any, counts: Counts, options: Any, *flat: Any
    ) -> tuple[Tensor, Tensor]:
        """Call the operator and keep what the backward pass takes."""
        output, hn, states = below_autograd(operator.forward, *nested(flat, counts), *options)
        save_arguments(ctx, operator, counts, options, states, flat)
        return output, hn

    @staticmethod
    @_each_entry
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the gradients of all arguments."""
        return (None, None, None, *_gradients(ctx, ctx.needs_input_grad[5], *grads[:2]))


class Transformable(torch.autograd.Function):
    """The same inside ``torch.func.grad``, ``torch.vmap`` and their like; it takes 20 us more."""

    @staticmethod
    def forward(
        operator: Any, counts: Counts, options: Any, *flat: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Call the operator."""
        return below_autograd(operator.forward, *nested(flat, counts), *options)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep what the backward pass takes."""
        operator, counts, options, *flat = inputs
        save_arguments(ctx, operator, counts, options, output[2], flat)
        ctx.mark_non_differentiable(output[2])

    backward = staticmethod(Eager.backward)

    @staticmethod
    def vmap(
        info: Any, in_dims: Sequence[Any], operator: Any, counts: Counts, options: Any, *flat: Any
    ) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:
        """Run the entries in as few calls as they allow."""

        def apply(options: Any, *flat: Any) -> tuple[Tensor, Tensor, Tensor]:
            return Transformable.apply(operator, counts, options, *flat)

        entries = Entries(operator, counts, options, info.batch_size, in_dims[3:], flat)
        return batched_forward(entries, apply)


class _Backward(torch.autograd.Function):
    """A backward operator with derivatives of its own, which a second derivative asks for."""

    @staticmethod
    def forward(operator: Any, counts: Counts, options: Any, *tensors: Any) -> tuple[Tensor, ...]:
        return _run_backward(operator, counts, options, tensors[:3], tensors[3:])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        operator, counts, options, grad_output, grad_hn, _, *flat = inputs
        _save_second(ctx, operator, counts, options, (grad_output, grad_hn), flat)

    @staticmethod
    @_each_entry
    def backward(ctx: Any, *wanted: Tensor | None) -> tuple[Tensor | None, ...]:
        given, grads = _second_derivatives(ctx, wanted)
        return (None, None, None, *given, None, *grads)

    @staticmethod
    def vmap(
        info: Any, in_dims: Sequence[Any], operator: Any, counts: Counts, options: Any, *flat: Any
    ) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:
        def apply(options: Any, *flat: Any) -> tuple[Tensor, ...]:
            return _Backward.apply(operator, counts, options, *flat)

        entries = Entries(operator, counts, options, info.batch_size, in_dims[6:], flat[3:])
        return batched_backward(entries, flat[:3], in_dims[3:6], apply)


def is_tracked(tensor: Tensor | None) -> bool:
    """Whether autograd tracks a tensor at any level of ``torch.func``."""
    if tensor is None:
        return False
    while not tensor.requires_grad and torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor.requires_grad


def save_for_second_derivatives(
    operator: Any,
) -> Callable[[Any, tuple[Any, ...], tuple[Any, ...]], None]:
    """Return what ``register_autograd`` calls to save a backward operator's arguments."""

    def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        flat, counts = flatten(inputs[3 : 3 + TENSORS])
        _save_second(ctx, operator, counts, inputs[3 + TENSORS :], inputs[:2], flat)

    return save


def _save_second(
    ctx: Any, operator: Any, counts: Counts, options: Any, given: Sequence[Any], flat: Sequence[Any]
) -> None:
    ctx.save_for_backward(*given, *flat)
    ctx.operator, ctx.counts, ctx.options = operator, counts, options
    ctx.set_materialize_grads(False)


def registered_second_derivatives(
    ctx: Any,
    wanted_x: Tensor | None,
    wanted_h0: Tensor | None,
    wanted_timespans: Tensor | None,
    *learned: Sequence[Tensor | None],
) -> tuple[Any, ...]:
    """Do what ``register_autograd`` wants of a backward operator."""
    wanted = wanted_x, wanted_h0, wanted_timespans, *learned[0], *learned[1]
    given, grads = _second_derivatives(ctx, wanted)
    return (*given, None, *nested(grads, ctx.counts), *(None,) * len(ctx.options))


def _second_derivatives(
    ctx: Any, wanted: Sequence[Tensor | None]
) -> tuple[list[Tensor | None], list[Tensor | None]]:
    """Differentiate a backward pass.

    Args:
        ctx: what ``_save_second`` saved.
        wanted: the gradients of what the backward operator returned.

    Returns:
        The gradients of the two that it was given, and of all tensors.
    """
    grad_output, grad_hn, *flat = ctx.saved_tensors
    operator, counts = ctx.operator, ctx.counts
    *options, _, _ = ctx.options
    wanted = *wanted[:FLOATING], *(None,) * (DATA - FLOATING), *wanted[FLOATING:]
    # Of data and parameters; what follows are lists, masks and factors.
    floating = (*range(FLOATING), *range(DATA, len(wanted)))
    differentiable = [i for i in floating if flat[i] is not None]
    asked = [i for i in differentiable if wanted[i] is not None]
    given = [grad for grad in (grad_output, grad_hn) if grad is not None]

    def outputs(*tensors: Tensor) -> list[Tensor]:
        filled = list(flat)
        for i, tensor in zip(differentiable, tensors, strict=True):
            filled[i] = tensor
        with torch.autocast(flat[0].device.type, enabled=False):
            results = operator.reference([*nested(filled, counts), *options])
        pairs = zip(results, (grad_output, grad_hn), strict=True)
        return [result for result, grad in pairs if grad is not None]

    def gradients(*tensors: Tensor) -> list[Tensor]:
        _, pull = torch.func.vjp(outputs, *tensors[len(given) :])  # type: ignore[misc]
        grads = dict(zip(differentiable, pull(list(tensors[: len(given)])), strict=True))
        return [grads[i] for i in asked]

    # Without has_aux it returns two.
    _, pull = torch.func.vjp(gradients, *given, *(flat[i] for i in differentiable))  # type: ignore[misc]
    found = list(pull([wanted[i] for i in asked]))
    of_given = [None if grad is None else found.pop(0) for grad in (grad_output, grad_hn)]
    grads: list[Tensor | None] = [None] * len(flat)
    for i, grad in zip(differentiable, found, strict=True):
        grads[i] = grad
    return of_given, grads
