"""The sparse masked product: registration with PyTorch's subsystems, and the function to call."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from fastltc._extension import load_operators
from fastltc.ops.checks import check_same_device
from fastltc.ops.ltc import HALF_DTYPES

__all__ = ["masked_linear"]

load_operators()
_forward = torch.ops.fastltc.masked_linear.default
_backward = torch.ops.fastltc.masked_linear_backward.default


@torch.library.register_fake("fastltc::masked_linear")
def _forward_fake(x: Tensor, weight: Tensor, bias: Tensor | None, synapses: Tensor) -> Tensor:
    check_same_device("fastltc::masked_linear", x, weight, bias, synapses)
    return x.new_empty(x.shape[0], weight.shape[0])


@torch.library.register_fake("fastltc::masked_linear_backward")
def _backward_fake(
    grad_output: Tensor, x: Tensor, weight: Tensor, synapses: Tensor, bias_grad: bool
) -> tuple[Tensor, Tensor, Tensor]:
    check_same_device("fastltc::masked_linear_backward", x, grad_output, weight, synapses)
    return (
        x.new_empty(x.shape),
        weight.new_empty(weight.shape),
        weight.new_empty(weight.shape[0] if bias_grad else 0),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, synapses = inputs
    ctx.save_for_backward(x, weight, synapses)
    ctx.has_bias = bias is not None


def _gradients(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, synapses = ctx.saved_tensors
    grad_x, grad_weight, grad_bias = _backward(grad_output, x, weight, synapses, ctx.has_bias)
    return grad_x, grad_weight, grad_bias if ctx.has_bias else None, None


def _no_second_derivative(ctx: Any, *grads: Tensor | None) -> None:
    raise NotImplementedError(
        "fastltc: the second derivative of masked_linear is not implemented (the backward of "
        "fastltc::masked_linear_backward was asked for, as by create_graph=True); use "
        "torch.nn.functional.linear(x, weight * mask, bias) where it is needed"
    )


torch.library.register_autograd("fastltc::masked_linear", _gradients, setup_context=_setup_context)
torch.library.register_autograd("fastltc::masked_linear_backward", _no_second_derivative)
for _device in ("cpu", "cuda"):
    torch.library.register_autocast("fastltc::masked_linear", _device, torch.float32)


def masked_linear(
    x: Tensor, weight: Tensor, synapses: Tensor, bias: Tensor | None = None
) -> Tensor:
    r"""Multiply by a masked weight, entry by entry of the mask: :math:`y = x (W \odot M)^T + b`.

    The work follows the number of ones in the mask. Entries of the weight off the mask are never
    read, and their gradient is exactly 0. The result does not depend on the number of threads.

    Args:
        x: ``[..., I]``, float32 or float64, any strides; half types are computed in float32.
        weight: ``[O, I]``, as that of ``torch.nn.Linear``.
        synapses: int32, as :func:`fastltc.nn.synapse_list` makes it from the transposed mask,
            ``mask.t()`` of ``[I, O]``.
        bias: ``[O]`` or None.

    Returns:
        ``[..., O]`` in the dtype of ``x`` (float32 under autocast). Differentiable once with
        respect to ``x``, ``weight`` and ``bias``.

    Raises:
        RuntimeError: if a shape, a dtype, a device or the list is wrong.
        NotImplementedError: if a second or a forward-mode derivative is asked for.

    Example:
        >>> import torch
        >>> from fastltc.nn import synapse_list
        >>> from fastltc.ops.masked_linear import masked_linear
        >>> mask = torch.rand(8, 5) < 0.2
        >>> y = masked_linear(torch.randn(3, 5), torch.randn(8, 5), synapse_list(mask.t()))
        >>> y.shape
        torch.Size([3, 8])
    """
    dtype = x.dtype
    if dtype in HALF_DTYPES or weight.dtype in HALF_DTYPES:
        y = masked_linear(
            x.float(), weight.float(), synapses, None if bias is None else bias.float()
        )
        return y if torch.is_autocast_enabled(x.device.type) else y.to(dtype)
    if forward_ad._current_level >= 0:
        raise NotImplementedError(
            "fastltc: masked_linear has no forward-mode derivative; use "
            "torch.nn.functional.linear(x, weight * mask, bias) where it is needed"
        )
    if x.dim() == 2:
        return _forward(x, weight, bias, synapses)
    if x.dim() == 0:
        raise RuntimeError("fastltc::masked_linear: x: expected shape [..., I], got []")
    y = _forward(x.reshape(x.shape[:-1].numel(), x.shape[-1]), weight, bias, synapses)
    return y.reshape(*x.shape[:-1], weight.shape[0])
