"""Classifiers with a liquid layer, by name."""

from __future__ import annotations

from torch import nn

from .conv_ncp import CELLS, ConvNCP

__all__ = ["CELLS", "MODELS", "ConvNCP", "build_model", "trainable_parameters"]

MODELS = {"conv-ncp": ConvNCP}


def build_model(
    name: str,
    image_shape: tuple[int, ...],
    classes: int,
    units: int,
    *,
    cell: str = "ltc",
    gain: float = 1.0,
    wiring_seed: int = 22222,
) -> ConvNCP:
    """Builds a classifier by its name, with parameters drawn from torch's global generator.

    Args:
        name: one of `MODELS`.
        image_shape: ``(C, H, W)``.
        classes: number of classes.
        units: neurons of the wiring.
        cell: recurrent cell, one of `CELLS`.
        gain: factor on the motor neurons' outputs, see `ConvNCP`.
        wiring_seed: seed of the wiring.

    Returns:
        A module that maps images ``[B, C, H, W]`` to logits ``[B, classes]``.

    Raises:
        ValueError: an unknown name, or sizes that do not fit.

    Example:
        >>> trainable_parameters(build_model("conv-ncp", (1, 28, 28), 2, 19)) > 261312
        True
    """
    if name not in MODELS:
        raise ValueError(f"model: expected one of {', '.join(MODELS)}, got {name!r}")
    return MODELS[name](image_shape, classes, units, cell=cell, gain=gain, wiring_seed=wiring_seed)


def trainable_parameters(module: nn.Module) -> int:
    """The number of scalars an optimizer would change."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
