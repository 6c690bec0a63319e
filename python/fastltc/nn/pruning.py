"""Synapses that are taken away and grown again between epochs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fastltc._parameters import LTC_TABLE
from fastltc.nn.cfc import CfC
from fastltc.nn.cfc_cell import CfCCell
from fastltc.nn.ltc import LTC
from fastltc.nn.ltc_cell import LTCCell


def prune_synapses(layer: nn.Module, fraction: float) -> int:
    r"""Take away the weakest synapses of a layer with a wiring, by its masks.

    The strength of a synapse is its conductance ``w`` (LTC), or the root of ``ff1^2 + ff2^2``
    (CfC, whose time gates have no masks). Parameters stay where they are, so that an optimizer goes
    on with its state; those of a synapse that is gone get gradients of 0 and are not read.

    Args:
        layer: an LTC, or a CfC with a wiring.
        fraction: share of all synapses that there are, sensory ones too, 0 to 1.

    Returns:
        How many were taken away.

    Raises:
        TypeError: if it is no such layer.
        ValueError: if it has no masks, or the share is out of its range.

    Example:
        >>> import torch
        >>> from fastltc import LTC
        >>> from fastltc.nn import prune_synapses, regrow_synapses
        >>> from fastltc.wirings import FullyConnected
        >>> layer = LTC(4, FullyConnected(16, 2))
        >>> optimizer = torch.optim.Adam(layer.parameters())
        >>> count = prune_synapses(layer, 0.5)
        >>> count, regrow_synapses(layer, 40, optimizer)
        (160, 40)

    Source: Mocanu et al., Scalable training of artificial neural networks with adaptive sparse
    connectivity inspired by network science, Nature Communications 2018, for both functions.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction: expected 0 to 1, got {fraction}")
    parts = _parts(layer)
    with torch.no_grad():
        strengths = torch.cat([part.strength()[part.mask != 0] for part in parts])
        count = round(fraction * strengths.numel())
        kept = torch.ones_like(strengths, dtype=torch.bool)
        kept[strengths.argsort(stable=True)[:count]] = False
        for part in parts:
            there = part.mask != 0
            some, kept = kept.split([int(there.sum()), kept.numel() - int(there.sum())])
            part.mask[there] = some.to(part.mask.dtype)
    _read_again(layer)
    return count


def regrow_synapses(
    layer: nn.Module,
    count: int,
    optimizer: torch.optim.Optimizer | None = None,
    generator: torch.Generator | None = None,
) -> int:
    """Put synapses where there are none, at random, with new parameters.

    New parameters are drawn as those of a new layer: of LTC from the ranges of ncps, with either
    sign; of CfC uniformly within the bound of Xavier's rule. A neuron of a wired CfC may get
    synapses from the layer before it.

    Args:
        layer: an LTC, or a CfC with a wiring.
        count: how many.
        optimizer: that of the layer. Where its state has the shape of a parameter (momentum, the
            moments of Adam), the entries of new synapses become 0; the others stay.
        generator: of the draws, on the CPU; torch's by default.

    Returns:
        The same number.

    Raises:
        TypeError: if it is no such layer.
        ValueError: if it has no masks, or there are fewer places; the text says how many.
    """
    parts = _parts(layer)
    places = sum(int((part.mask == 0).sum()) for part in parts)
    if not 0 <= count <= places:
        raise ValueError(f"count: expected 0 to {places} places without a synapse, got {count}")
    state: Any = {} if optimizer is None else optimizer.state
    chosen = torch.zeros(places, dtype=torch.bool)
    chosen[torch.randperm(places, generator=generator)[:count]] = True
    with torch.no_grad():
        for part in parts:
            free = part.mask == 0
            number = int(free.sum())
            some, chosen = chosen.split([number, chosen.numel() - number])
            new = torch.zeros_like(free)
            new[free] = some.to(free.device)
            part.mask[new] = 1
            for parameter, low, high in part.parameters:
                drawn = torch.rand(int(new.sum()), generator=generator) * (high - low) + low
                if (low, high) == _SIGNS:
                    drawn = torch.where(drawn < 0, -1.0, 1.0)
                parameter[new] = drawn.to(parameter)
                for value in state.get(parameter, {}).values():
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        value[new] = 0
    _read_again(layer)
    return count


# The range that stands for a draw of -1 or 1.
_SIGNS = (-1.0, 1.0)


class _Part:
    """A mask, and the parameters of its synapses with the ranges of their first values."""

    def __init__(self, mask: Tensor, parameters: list[tuple[Any, float, float]], ltc: Any) -> None:
        self.mask, self.parameters, self._ltc = mask, parameters, ltc

    def strength(self) -> Tensor:
        if self._ltc is not None:
            return self._ltc.make_positive_fn(self.parameters[0][0])
        return sum((p.square() for p, _, _ in self.parameters), torch.zeros(())).sqrt()


def _parts(layer: Any) -> list[_Part]:
    if isinstance(layer, LTC):
        cell: Any = layer.rnn_cell
        ranges = {row.name: row.drawn or _SIGNS for row in LTC_TABLE}
        return [
            _Part(
                getattr(cell, f"{prefix}sparsity_mask"),
                [
                    (getattr(cell, prefix + name), *ranges[prefix + name])
                    for name in ("w", "erev", "sigma", "mu")
                ],
                cell,
            )
            for prefix in ("", "sensory_")
        ]
    if not isinstance(layer, CfC):
        raise TypeError(f"layer: expected an LTC or CfC layer, got {type(layer).__name__}")
    if not layer.wired_mode:
        raise ValueError("layer: expected a CfC with a wiring, got one without masks")
    parts = []
    for cell in layer.rnn_cell._layers:
        heads = ("ff1",) if cell.mode == "pure" else ("ff1", "ff2")
        weights = [getattr(cell, head).weight for head in heads]
        bound = (6 / sum(weights[0].shape)) ** 0.5
        parts.append(_Part(cell.sparsity_mask, [(w, -bound, bound) for w in weights], None))
    return parts


def _read_again(layer: nn.Module) -> None:
    for cell in layer.modules():
        if isinstance(cell, LTCCell):
            cell.refresh_synapses()
        elif isinstance(cell, CfCCell) and cell.sparsity_mask is not None:
            cell._rounded.refresh(cell.sparsity_mask)
