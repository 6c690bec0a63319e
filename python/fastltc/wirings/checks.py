"""What a wiring can be drawn with: counts of synapses out of sparsity levels."""

from __future__ import annotations

from typing import Any

import numpy as np


def synapses_of_each(name: str, sparsity: float, onto: int) -> int:
    """Return how many synapses a neuron has onto so many others at a sparsity level.

    Raises:
        ValueError: if it is none, or the level is no share; the text says up to which level there
            is one.
    """
    if not 0 <= sparsity < 1:
        raise ValueError(f"{name}: expected 0 (full) or more and less than 1, got {sparsity}")
    count = round(onto * (1 - sparsity))
    if count == 0:
        # Halves are rounded to even numbers, so that half a synapse is none.
        most = np.floor(100 * (1 - 0.5 / onto) - 1e-9) / 100
        raise ValueError(
            f"{name}: expected at most {most:g}, at which each neuron still has a synapse onto a "
            f"layer of {onto}, got {sparsity}"
        )
    return count


def check_count(name: str, count: Any, least: int = 1, most: int | None = None) -> int:
    """Return a count in its range, or raise ValueError."""
    if count < least or (most is not None and count > most):
        expected = f"{least} or more" if most is None else f"{least} to {most}"
        raise ValueError(f"{name}: expected {expected}, got {count}")
    return int(count)
