"""Layers without some of their neurons and synapses, for as long as a ``with`` block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fastltc._parameters import CFC_HEADS
from fastltc.inspect.trace import names_of
from fastltc.nn import LTC, CfC, CfCCell, LTCCell

Edit = tuple[Tensor, Any]


@contextmanager
def ablate(
    layer: nn.Module,
    neurons: Sequence[int | str] = (),
    synapses: Sequence[tuple[int | str, int | str]] = (),
    sensory_synapses: Sequence[tuple[int, int | str]] = (),
) -> Iterator[None]:
    """Run a layer without some of its neurons and synapses.

    The state of an ablated neuron is 0 (from the first step on, unless ``hx`` says something else
    of it), no synapse leads from it, and with mixed memory the memory has nothing of it. Where a
    motor neuron is ablated, its output is the offset of the output map. An ablated synapse is none:
    of a CfC, whose time gates have no masks, the weights of these, too.

    The parameters and masks are changed in place, and are as they were afterwards, bit by bit; so
    this is for evaluation, and a gradient of what ran inside has to be taken inside. Other threads
    must not run the layer meanwhile.

    Args:
        layer: an LTC or CfC layer.
        neurons: their places in the state, from 0 (of a wired CfC these follow its layers), or
            their names as :class:`Trace` has them, ``"command 2"``.
        synapses: pairs of a presynaptic and a postsynaptic neuron.
        sensory_synapses: pairs of an input and a neuron.

    Raises:
        TypeError: if it is no such layer, or a weight is computed from others (parametrized,
            pruned) and cannot be changed.
        IndexError: if there is no such neuron or input.
        ValueError: if there is no such synapse, or the layer has a backbone, behind which there are
            none.

    Example:
        >>> import torch
        >>> from fastltc import LTC
        >>> from fastltc.inspect import ablate
        >>> from fastltc.wirings import AutoNCP
        >>> layer, x = LTC(4, AutoNCP(12, 2)), torch.randn(1, 20, 4)
        >>> whole, _ = layer(x)
        >>> with torch.no_grad(), ablate(layer, neurons=["command 0"]):
        ...     without, _ = layer(x)
        >>> torch.equal(whole, without), torch.equal(whole, layer(x)[0])
        (False, True)
    """
    if not isinstance(layer, (LTC, CfC)):
        raise TypeError(f"layer: expected an LTC or CfC layer, got {type(layer).__name__}")
    find = _Places(layer)
    chosen = sorted({find.neuron(neuron) for neuron in neurons})
    pairs = [(find.neuron(pre), find.neuron(post)) for pre, post in synapses]
    from_inputs = [(find.input(pre), find.neuron(post)) for pre, post in sensory_synapses]
    cell = layer.rnn_cell
    make = _of_ltc if isinstance(layer, LTC) else _of_cfc
    edits = make(cell, chosen, pairs, from_inputs)
    if layer.use_mixed and chosen:
        edits += _of_memory(layer.lstm, chosen)
    before = {id(tensor): (tensor, tensor.detach().clone()) for tensor, _ in edits}
    try:
        with torch.no_grad():
            for tensor, index in edits:
                tensor[index] = 0
        _read_again(cell)
        yield
    finally:
        with torch.no_grad():
            for tensor, values in before.values():
                tensor.copy_(values)
        _read_again(cell)


class _Places:
    """Where the neurons and inputs of a layer are, by number or name."""

    def __init__(self, layer: Any) -> None:
        self._names = names_of(layer)
        self._inputs = layer._inputs_and_neurons()[0]

    def neuron(self, which: int | str) -> int:
        if isinstance(which, str):
            if which not in self._names:
                raise IndexError(f"neuron: expected one of {', '.join(self._names)}, got {which!r}")
            return self._names.index(which)
        return _checked("neuron", which, len(self._names))

    def input(self, which: int) -> int:
        return _checked("input", which, self._inputs)


def _checked(name: str, which: int, count: int) -> int:
    if not 0 <= which < count:
        raise IndexError(f"{name}: expected 0 to {count - 1}, got {which}")
    return int(which)


def _own(module: nn.Module, name: str) -> Tensor:
    """Return a parameter that is not computed from others."""
    found = module._parameters.get(name)
    if found is None:
        raise TypeError(f"{name}: expected a parameter of the layer, got one computed from others")
    return found


def _of_ltc(
    cell: Any,
    neurons: list[int],
    synapses: list[tuple[int, int]],
    sensory_synapses: list[tuple[int, int]],
) -> list[Edit]:
    mask, sensory_mask = _own(cell, "sparsity_mask"), _own(cell, "sensory_sparsity_mask")
    for name, exists, pairs in (
        ("synapses", mask, synapses),
        ("sensory_synapses", sensory_mask, sensory_synapses),
    ):
        missing = [pair for pair in pairs if exists[pair] == 0]
        if missing:
            raise ValueError(f"{name}: expected synapses that there are, got {missing}")
    edits: list[Edit] = [(mask, pair) for pair in synapses]
    edits += [(sensory_mask, pair) for pair in sensory_synapses]
    every = slice(None)
    for neuron in neurons:
        edits += [(mask, neuron), (mask, (every, neuron)), (sensory_mask, (every, neuron))]
        # Without synapses it would go to its leak potential.
        edits.append((_own(cell, "vleak"), neuron))
    return edits


def _of_cfc(
    cell: Any,
    neurons: list[int],
    synapses: list[tuple[int, int]],
    sensory_synapses: list[tuple[int, int]],
) -> list[Edit]:
    cells = [cell] if isinstance(cell, CfCCell) else cell._layers
    places = [(number, row) for number, c in enumerate(cells) for row in range(c.hidden_size)]
    pure = cells[0].mode == "pure"
    edits: list[Edit] = []
    for neuron in neurons:
        number, row = places[neuron]
        for head in ("ff1",) if pure else ("ff1", "ff2"):
            linear = getattr(cells[number], head)
            edits += [(_own(linear, name), row) for name in ("weight", "bias")]
        if pure:
            edits.append((_own(cells[number], "A"), (0, row)))

    def cut(name: str, pair: tuple[int, int], post: int, column: int | None) -> None:
        number, row = places[post]
        if column is None or cells[number].backbone_layers > 0:
            which = "from a layer onto itself or the next" if column is None else "and no backbone"
            raise ValueError(f"{name}: expected synapses {which}, got {pair}")
        for head in CFC_HEADS[:1] if pure else CFC_HEADS:
            edits.append((_own(getattr(cells[number], head), "weight"), (row, column)))

    for pre, post in synapses:
        (from_cell, source), number = places[pre], places[post][0]
        column = None
        if from_cell == number:
            column = cells[number].input_size + source
        elif from_cell == number - 1:
            column = source
        cut("synapses", (pre, post), post, column)
    for pre, post in sensory_synapses:
        cut("sensory_synapses", (pre, post), post, None if places[post][0] else pre)
    return edits


def _of_memory(lstm: Any, neurons: list[int]) -> list[Edit]:
    """Nothing is written into the memory of a neuron: the first of the four blocks of rows."""
    tensors = [_own(lstm.input_map, name) for name in ("weight", "bias")]
    tensors.append(_own(lstm.recurrent_map, "weight"))
    return [(tensor, neuron) for tensor in tensors for neuron in neurons]


def _read_again(cell: Any) -> None:
    if isinstance(cell, LTCCell):
        cell.refresh_synapses()
