"""First values of an LTC for which a time constant does not shrink with the layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fastltc.nn.ltc import LTC


def init_by_fan_in(layer: nn.Module, conductance: float = 4.0, reversal: float = 0.5) -> None:
    """Draw the synapses of an LTC layer anew, by how many of them a neuron has.

    As ncps draws them, each synapse of a neuron adds to the conductance that pulls it from its
    potential: its time constant is about ``cm / (number of synapses)``, and a full layer of 64
    neurons forgets within a step. Here a neuron with ``n`` synapses, sensory ones too, gets ::

        w    = conductance / n * uniform(0.2, 1.8)       after the constraint
        mu   = uniform(-0.5, 0.5)
        erev = (1 or -1, as it was) * reversal * sqrt(n)

    so that all of them together, each half open, conduct ``conductance / 2``, and their random
    signs still move the neuron. It serves a layer behind an encoder that has to remember; where a
    neuron has to tell short time steps apart, the quick neurons of the usual draw do better
    (docs: "How to train liquid networks").

    Draws from torch's global generator; other parameters stay as they are.

    Args:
        layer: an LTC.
        conductance: of all synapses of a neuron together, above 0.
        reversal: of a single synapse, above 0.

    Raises:
        TypeError: if it is no LTC.
        ValueError: if a number is not above 0.

    Example:
        >>> from fastltc import LTC
        >>> from fastltc.nn import init_by_fan_in
        >>> layer = LTC(4, 64)
        >>> init_by_fan_in(layer)
        >>> bool(layer.rnn_cell.make_positive_fn(layer.rnn_cell.w).max() <= 4 * 1.8 / 68)
        True
    """
    if not isinstance(layer, LTC):
        raise TypeError(f"layer: expected an LTC layer, got {type(layer).__name__}")
    for name, value in (("conductance", conductance), ("reversal", reversal)):
        if not 0 < value < float("inf"):
            raise ValueError(f"{name}: expected a finite number above 0, got {value}")
    cell: Any = layer.rnn_cell
    positive = cell.make_positive_fn
    with torch.no_grad():
        count = (cell.sparsity_mask.sum(0) + cell.sensory_sparsity_mask.sum(0)).clamp(min=1)
        for prefix in ("", "sensory_"):
            w, mu, erev = (getattr(cell, prefix + name) for name in ("w", "mu", "erev"))
            each = conductance / count * torch.empty_like(w).uniform_(0.2, 1.8)
            # The inverse of the softplus.
            w.copy_(each.expm1().log() if isinstance(positive, nn.Softplus) else each)
            mu.uniform_(-0.5, 0.5)
            erev.copy_(torch.where(erev < 0, -1.0, 1.0) * reversal * count.sqrt())
