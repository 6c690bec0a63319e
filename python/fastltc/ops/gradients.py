"""Derivatives of a layer over a batch of sequences, in eager mode and inside ``torch.func``.

First derivatives in reverse mode come of the backward operators. Rarer ones come of the layer in
plain PyTorch, ``SequenceOperator.reference``: it takes the time that the layer would take without
kernels, and is differentiable any number of times. Under ``torch.vmap`` data is folded into the
batch of one call; with parameters of its own each entry is a call of its own.

A layer's tensors travel here as one flat list, because autograd functions see none inside lists,
with ``counts``: how many parameters and tensors of the memory cell there are, and how many tensors
the first of the two connections has, None where it is a tensor itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

TENSORS = 8
"""How many of a forward operator's first arguments are tensors or lists of tensors."""

_DATA = 4
"""How many of these are data."""
_LENGTHS = 3
"""The one that no gradient goes to."""

Counts = tuple[int, int, int | None]


def below_autograd(operator: Any, *arguments: Any) -> Any:
    """Call an operator without the autograd kernel that ``register_autograd`` puts in Python.

    It costs as much as the rest of a call.
    """
    with torch._C._AutoDispatchBelowAutograd():
        # What a call of the overload calls: a frame less.
        return operator._op(*arguments)


def flatten(tensors: Sequence[Any]) -> tuple[list[Any], Counts]:
    """Return the tensors among the first arguments, and how many are in each list."""
    *data, parameters, memory, first, second = tensors
    if isinstance(first, Tensor):
        return [*data, *parameters, *memory, first, second], (len(parameters), len(memory), None)
    counts = len(parameters), len(memory), len(first)
    return [*data, *parameters, *memory, *first, second], counts


def _nested(flat: Sequence[Any], counts: Counts) -> list[Any]:
    """Return the arguments again."""
    parameters, memory, first = counts
    end, flat = _DATA + parameters, list(flat)
    nested = [*flat[:_DATA], flat[_DATA:end], flat[end : end + memory]]
    rest = flat[end + memory :]
    return [*nested, *rest] if first is None else [*nested, rest[:-1], rest[-1]]


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
        None,
        *learned,
        *(None,) * (len(flat) - _DATA - len(learned)),
    ]


def _run_backward(
    operator: Any, counts: Counts, options: Any, given: Sequence[Any], flat: Sequence[Any]
) -> tuple[Tensor, ...]:
    arguments = *given, *_nested(flat, counts), *options
    *grads, parameters, memory = below_autograd(operator.backward, *arguments)
    return *grads, *parameters, *memory


def registered_gradients(
    ctx: Any, grad_output: Tensor | None, grad_hn: Tensor | None, grad_states: Tensor | None
) -> tuple[Any, ...]:
    """Do what ``register_autograd`` wants of a forward operator."""
    grads = _gradients(ctx, ctx.needs_input_grad[2], grad_output, grad_hn)
    return (*_nested(grads, ctx.counts), *(None,) * len(ctx.options))


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
        results = _one_by_one(lambda *grads: backward(ctx, *grads), count, dims, entries)
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
        output, hn, states = below_autograd(operator.forward, *_nested(flat, counts), *options)
        save_arguments(ctx, operator, counts, options, states, flat)
        return output, hn

    @staticmethod
    @_each_entry
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return (None, None, None, *_gradients(ctx, ctx.needs_input_grad[5], *grads[:2]))


class Transformable(torch.autograd.Function):
    """The same inside ``torch.func.grad``, ``torch.vmap`` and their like; it takes 20 us more."""

    @staticmethod
    def forward(
        operator: Any, counts: Counts, options: Any, *flat: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        return below_autograd(operator.forward, *_nested(flat, counts), *options)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        operator, counts, options, *flat = inputs
        save_arguments(ctx, operator, counts, options, output[2], flat)
        ctx.mark_non_differentiable(output[2])

    backward = staticmethod(Eager.backward)

    @staticmethod
    def vmap(
        info: Any, in_dims: Sequence[Any], operator: Any, counts: Counts, options: Any, *flat: Any
    ) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:
        dims, count = in_dims[3:], info.batch_size
        if not _is_folded(dims, flat):
            outputs = _one_by_one(
                lambda *flat: Transformable.apply(operator, counts, options, *flat),
                *(count, dims, flat),
            )
            return outputs, (0, 0, 0)
        batch = flat[0].movedim(dims[0], 0).shape[1] if dims[0] is not None else flat[0].shape[0]

        def fold(tensor: Tensor | None, dim: int | None) -> Tensor | None:
            if tensor is None:
                return None
            entries = tensor.expand(count, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
            return entries.flatten(0, 1)

        data = [fold(t, d) for t, d in zip(flat[:_DATA], dims, strict=False)]
        *outputs, states = Transformable.apply(operator, counts, options, *data, *flat[_DATA:])
        # The states of all entries are in one buffer, which only the backward operator can read.
        return (*(o.unflatten(0, (count, batch)) for o in outputs), states), (0, 0, None)


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
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        dims = in_dims[3:]
        # The states of a folded forward pass belong to all entries together.
        again = dims[2] is None and any(dim is not None for dim in dims[3:])

        def run(grad_output: Any, grad_hn: Any, states: Any, *flat: Any) -> Any:
            if again:
                arguments = *_nested(flat, counts), *options[:-1], True
                _, _, states = below_autograd(operator.forward, *arguments)
            given = grad_output, grad_hn, states
            return _Backward.apply(operator, counts, options, *given, *flat)

        outputs = _one_by_one(run, info.batch_size, dims, flat)
        return outputs, (0,) * len(outputs)


def is_tracked(tensor: Tensor | None) -> bool:
    """Whether autograd tracks a tensor at any level of ``torch.func``."""
    if tensor is None:
        return False
    while not tensor.requires_grad and torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor.requires_grad


def _is_folded(dims: Sequence[int | None], flat: Sequence[Any]) -> bool:
    """Whether only data differs between the entries of a vmap.

    Dropout's factors, the last tensor of a CfC, have their samples elsewhere.
    """
    if any(dim is not None for dim in dims[_DATA:]):
        return False
    return flat[-1] is None or not flat[-1].is_floating_point()


def _one_by_one(
    run: Callable[..., Sequence[Any]], count: int, dims: Sequence[int | None], flat: Sequence[Any]
) -> tuple[Any, ...]:
    """Run each entry of a vmap by itself and stack what comes out."""
    results = [
        run(*(t if d is None else t.select(d, k) for t, d in zip(flat, dims, strict=True)))
        for k in range(count)
    ]
    return tuple(
        None if entries[0] is None else torch.stack(entries)
        for entries in zip(*results, strict=True)
    )


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
    return (*given, None, *_nested(grads, ctx.counts), *(None,) * len(ctx.options))


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
    wanted = *wanted[:_LENGTHS], None, *wanted[_LENGTHS:]
    # Of data and parameters; what follows are lists, masks and factors.
    differentiable = [i for i in range(len(wanted)) if flat[i] is not None and i != _LENGTHS]
    asked = [i for i in differentiable if wanted[i] is not None]
    given = [grad for grad in (grad_output, grad_hn) if grad is not None]

    def outputs(*tensors: Tensor) -> list[Tensor]:
        filled = list(flat)
        for i, tensor in zip(differentiable, tensors, strict=True):
            filled[i] = tensor
        with torch.autocast(flat[0].device.type, enabled=False):
            results = operator.reference(*_nested(filled, counts), *options)
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
