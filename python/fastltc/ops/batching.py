"""The tensors of a layer as one flat list, and entries of ``torch.vmap`` in few calls of it.

The list is what autograd functions take, which see no tensors inside lists. With it goes
``counts``: how many parameters and tensors of the memory cell there are, and how many tensors the
first of the two connections has, None where it is a tensor itself.

Entries of a vmap that differ in data alone are folded into the batch of one call. Those with
parameters of their own run beside each other, as ``fastltc.ParallelLTC`` does, where the operator
can; else each is a call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

TENSORS = 9
"""How many of a forward operator's first arguments are tensors or lists of tensors."""

DATA = 5
"""How many of these are data."""
FLOATING = 3
"""How many of the data, which come first, gradients go to; the rest are lengths and resets."""

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


def nested(flat: Sequence[Any], counts: Counts) -> list[Any]:
    """Return the arguments again."""
    parameters, memory, first = counts
    end, flat = DATA + parameters, list(flat)
    nested = [*flat[:DATA], flat[DATA:end], flat[end : end + memory]]
    rest = flat[end + memory :]
    return [*nested, *rest] if first is None else [*nested, rest[:-1], rest[-1]]


def one_by_one(
    run: Callable[..., Sequence[Any]], count: int, dims: Sequence[int | None], flat: Sequence[Any]
) -> tuple[Any, ...]:
    """Run each entry by itself and stack what comes out."""
    results = [
        run(*(t if d is None else t.select(d, k) for t, d in zip(flat, dims, strict=True)))
        for k in range(count)
    ]
    return tuple(
        None if entries[0] is None else torch.stack(entries)
        for entries in zip(*results, strict=True)
    )


def run_beside(
    count: int, run: Callable[..., Any], x: Tensor, h0: Tensor | None, timespans: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Run layers beside each other one after another, ``run(k, x, h0, timespans)`` each."""

    def own(tensor: Tensor | None, k: int) -> Any:
        return None if tensor is None else tensor.chunk(count, -1)[k]

    shared = timespans is None or timespans.dim() == 2
    results = [
        run(k, own(x, k), own(h0, k), timespans if shared else own(timespans, k))
        for k in range(count)
    ]
    outputs, states = zip(*results, strict=True)
    return torch.cat(outputs, -1), torch.cat(states, -1)


@dataclass
class Entries:
    """The entries of a vmap: ``count`` calls of an operator, of which some tensors are the same."""

    operator: Any
    counts: Counts
    options: Any
    """Its arguments that are no tensors."""
    count: int
    dims: Sequence[int | None]
    """Which axis of each tensor is that of the entries, None where all share it."""
    flat: Sequence[Any]
    """The tensors."""

    def are_data_alone(self) -> bool:
        """Whether only data differs; dropout's factors would be, too."""
        return all(dim is None for dim in self.dims[DATA:]) and self._factors() is None

    def are_beside(self) -> bool:
        """Whether they are layers that one call runs beside each other, with the same time."""
        end = DATA + self.counts[0]
        first, dim = self.flat[DATA], self.dims[DATA]
        same = *self.dims[2:DATA], *self.dims[end:-1]
        if self._factors() is None:
            same = *same, self.dims[-1]
        return (
            any(dim is not None for dim in self.dims[DATA:end])
            and all(dim is None for dim in same)
            and self.counts[1] == 0
            # Not layers beside each other already, nor on a device that runs none.
            and first.dim() - (dim is not None) == self.operator.axes
            and (first.is_cpu or self.operator.repeat is not None)
        )

    def _factors(self) -> Tensor | None:
        """Return those of dropout, the last tensor of a CfC."""
        last = self.flat[-1]
        return None if last is None or not last.is_floating_point() else last

    def stacked(self) -> list[Any]:
        """Return the tensors of the layers beside each other."""
        x, h0, timespans, *others = self.flat[:DATA]
        end = DATA + self.counts[0]
        learned = zip(self.flat[DATA:end], self.dims[DATA:end], strict=True)
        parameters = [_entries(tensor, dim, self.count) for tensor, dim in learned]
        x, h0 = _beside(x, self.dims[0], self.count), _beside(h0, self.dims[1], self.count)
        if timespans is not None and timespans.dim() == 3:
            timespans = _beside(timespans, None, self.count)
        rest = self.flat[end:]
        factors = self._factors()
        if factors is not None:
            rest = *rest[:-1], _beside(factors, self.dims[-1], self.count)
        if self.operator.repeat is not None:
            rest = self.operator.repeat(self.count, x, parameters, rest)
        return [x, h0, timespans, *others, *parameters, *rest]


def _entries(tensor: Tensor, dim: int | None, count: int) -> Tensor:
    """Return all entries, the first axis."""
    if dim is None:
        return tensor.expand(count, *tensor.shape)
    return tensor if dim == 0 else tensor.movedim(dim, 0)


def _beside(tensor: Tensor | None, dim: int | None, count: int) -> Tensor | None:
    """Put the last axes of all entries beside each other."""
    if tensor is None:
        return None
    return _entries(tensor, dim, count).movedim(0, -2).flatten(-2)


def batched_forward(
    entries: Entries, apply: Callable[..., tuple[Tensor, Tensor, Tensor]]
) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:
    """Run the entries of a vmap, as its rules have it.

    Args:
        entries: of the forward operator.
        apply: runs one call, given the options and the tensors.

    Returns:
        The output, the last state and the states to keep, and which axes are the entries'. The
        states of one call are in one buffer, which only the backward operator can read.
    """
    options, count, dims, flat = entries.options, entries.count, entries.dims, entries.flat
    if entries.are_data_alone():
        data: list[Any] = [
            None if tensor is None else _entries(tensor, dim, count)
            for tensor, dim in zip(flat[:DATA], dims, strict=False)
        ]
        folded = (None if tensor is None else tensor.flatten(0, 1) for tensor in data)
        *outputs, states = apply(options, *folded, *flat[DATA:])
        batch = data[0].shape[1]
        return (*(y.view(count, batch, *y.shape[1:]) for y in outputs), states), (0, 0, None)
    if entries.are_beside():
        *outputs, states = apply(options, *entries.stacked())
        of = tuple(y.dim() - 1 for y in outputs)
        # Of no outputs -1 would say nothing; unflatten, of Python, would take longer.
        each = (y.view(*y.shape[:-1], count, y.shape[-1] // count) for y in outputs)
        return (*each, states), (*of, None)
    return one_by_one(lambda *flat: apply(options, *flat), count, dims, flat), (0, 0, 0)


def run_in_vmap(
    operator: Any, counts: Counts, options: Any, flat: Sequence[Any], apply: Callable[..., Any]
) -> list[Tensor] | None:
    """Run a forward operator inside one ``torch.vmap`` and nothing else of ``torch.func``.

    ``apply`` runs one call outside of it, see :func:`batched_forward`; what autograd tracks is
    tracked there. An autograd function inside would take a millisecond for the same. None where
    that is not so.
    """
    functorch = torch._C._functorch
    stack = functorch.get_interpreter_stack()
    if stack is None or len(stack) != 1 or stack[0].key() != functorch.TransformType.Vmap:
        return None
    tensors: list[Any] = list(flat)
    dims: list[Any] = [None] * len(tensors)
    count = None
    for i, tensor in enumerate(flat):
        if tensor is not None and functorch.is_batchedtensor(tensor):
            tensors[i], dims[i] = functorch.get_unwrapped(tensor), functorch.maybe_get_bdim(tensor)
            count = tensors[i].shape[dims[i]]

    level = stack[0].level()
    # An autograd function asks for the stack itself.
    saved = functorch.pop_dynamic_layer_stack()
    try:
        if count is None:
            return list(apply(options, *tensors)[:2])
        entries = Entries(operator, counts, options, count, dims, tensors)
        outputs, of = batched_forward(entries, apply)
    finally:
        functorch.push_dynamic_layer_stack(saved)
    axes: Any = of
    return [functorch._add_batch_dim(y, d, level) for y, d in zip(outputs[:2], axes, strict=False)]


def batched_backward(
    entries: Entries,
    given: Sequence[Any],
    given_dims: Sequence[int | None],
    apply: Callable[..., Any],
) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:
    """Run the entries of a vmap backwards; see :func:`batched_forward`.

    Args:
        entries: of the backward operator, without what was given.
        given: the gradients of the output and the last state, and the states.
        given_dims: which axes of these are the entries'.
        apply: runs one call, given the options and all tensors.
    """
    options, count, dims, flat = entries.options, entries.count, entries.dims, entries.flat
    *_, timespans_grad = options
    *_, states_dim = given_dims
    if states_dim is None and not timespans_grad and entries.are_beside():
        *grads, states = given
        pairs = zip(grads, given_dims, strict=False)
        stacked = entries.stacked()
        of_outputs = (_beside(grad, dim, count) for grad, dim in pairs)
        grad_x, grad_h0, none, *learned = apply(options, *of_outputs, states, *stacked)
        no_h0 = stacked[1] is None
        outputs = (
            grad_x.unflatten(-1, (count, -1)),
            grad_h0 if no_h0 else grad_h0.unflatten(-1, (count, -1)),
            none,
            *learned,
        )
        return outputs, (2, None if no_h0 else 1, None, *(0,) * len(learned))
    # The states of one call for all entries are of no use to one of them.
    again = states_dim is None and any(dim is not None for dim in dims)

    def run(grad_output: Any, grad_hn: Any, states: Any, *flat: Any) -> Any:
        if again:
            arguments = *nested(flat, entries.counts), *options[:-1], True
            _, _, states = below_autograd(entries.operator.forward, *arguments)
        return apply(options, grad_output, grad_hn, states, *flat)

    outputs = one_by_one(run, count, (*given_dims, *dims), (*given, *flat))
    return outputs, (0,) * len(outputs)
