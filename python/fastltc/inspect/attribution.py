"""Which part of an input drove an output: gradients along the input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

METHODS = ("integrated_gradients", "gradient_x_input")


def attribute(
    model: nn.Module | Callable[..., Any],
    input: Tensor,
    target: Tensor | list[int] | int,
    *,
    method: str = "integrated_gradients",
    baseline: Tensor | float = 0.0,
    steps: int = 32,
    axis: int | None = None,
    **options: Any,
) -> Tensor:
    r"""Say how much each entry of an input has added to an output.

    With ``x0`` the baseline::

        gradient_x_input:      (x - x0) df/dx
        integrated_gradients:  (x - x0) (1/K) sum_k df/dx at x0 + (k + 1/2)/K (x - x0), k < K

    Integrated gradients add up to ``f(x) - f(x0)``, up to the error of the sum over ``steps`` (K).

    Args:
        model: returns the outputs, ``[B, M]``, alone or first in a tuple (as a layer with
            ``return_sequences=False``).
        input: ``[B, ...]``, floating point: images, or sequences.
        target: which output, for each sample or for all; of a classifier the class.
        method: ``"integrated_gradients"`` or ``"gradient_x_input"``.
        baseline: an input that says nothing, of a shape that broadcasts to the input's; 0 by
            default.
        steps: K, of the integral.
        axis: sum over all other axes but the first: 2 for the rows of images ``[B, C, H, W]``, 1
            for the time steps of sequences ``[B, T, I]``.
        options: further arguments of the model.

    Returns:
        The attribution, of the shape of the input, or ``[B, size of the axis]``.

    Raises:
        ValueError: if the method is unknown, ``steps`` is less than 1, the axis is not there, or
            the outputs have another shape.
        IndexError: if the target is no output.

    Example:
        >>> import torch
        >>> from fastltc import CfC
        >>> from fastltc.inspect import attribute
        >>> layer = CfC(3, 5, return_sequences=False)
        >>> attribute(layer, torch.randn(2, 20, 3), target=1, axis=1).shape
        torch.Size([2, 20])

    Source: Sundararajan, Taly and Yan, Axiomatic Attribution for Deep Networks, ICML 2017;
    Shrikumar et al., Not Just a Black Box, 2016 (arXiv:1605.01713).
    """
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    if steps < 1:
        raise ValueError(f"steps: expected 1 or more, got {steps}")
    if axis is not None and not 1 <= axis < input.dim():
        raise ValueError(f"axis: expected 1 to {input.dim() - 1}, got {axis}")
    batch = input.shape[0]
    which = torch.as_tensor(target, device=input.device).expand(batch)

    def gradient(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            outputs = model(x, **options)
            outputs = outputs[0] if isinstance(outputs, tuple) else outputs
            if outputs.dim() != 2 or outputs.shape[0] != batch:
                raise ValueError(
                    f"model: expected outputs of shape [B, M] with B = {batch}, got "
                    f"{list(outputs.shape)}"
                )
            if batch and not 0 <= int(which.min()) <= int(which.max()) < outputs.shape[1]:
                raise IndexError(
                    f"target: expected outputs of 0 to {outputs.shape[1] - 1}, got "
                    f"{int(which.min())} to {int(which.max())}"
                )
            chosen = outputs.gather(1, which.unsqueeze(1)).sum()
            return torch.autograd.grad(chosen, x)[0]

    way = input.detach() - baseline
    if method == "gradient_x_input":
        mean = gradient(input)
    else:
        start = input.detach() - way
        mean = torch.zeros_like(input)
        for k in range(steps):
            mean += gradient(start + (k + 0.5) / steps * way) / steps
    found = way * mean
    if axis is None:
        return found
    return found.sum([d for d in range(1, found.dim()) if d != axis])
