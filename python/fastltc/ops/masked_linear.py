"""The sparse masked product: registration with PyTorch's subsystems, and the function to call."""

from __future__ import annotations

import functools
import math
from operator import mul
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from fastltc._extension import load_operators, load_runtime
from fastltc.ops.batching import below_autograd
from fastltc.ops.errors import check_has_kernels, check_same_device
from fastltc.ops.sequence import HALF_DTYPES, compute_in_float32_under_autocast
from fastltc.ops.synapses import check_entries, mask_entries

load_operators()
_forward = torch.ops.fastltc.masked_linear.default
_backward = torch.ops.fastltc.masked_linear_backward.default


def _processor() -> tuple[int, bool]:
    """Return the bytes of a vector register, and whether the dense product has AVX-512."""
    try:
        info = load_runtime().cpu_info()
    except ValueError:
        return 64, False  # FASTLTC_CPU asks for what is not there; the operators will say so
    # MKL, which torch multiplies by, takes AVX-512 on processors of its maker alone.
    by_avx512 = info["maker"] == "intel" and "avx512" in info["supported"]
    return 4 * int(info["lanes"]["float32"]), by_avx512


_VECTOR_BYTES, _DENSE_BY_AVX512 = _processor()


@torch.library.register_fake("fastltc::masked_linear")
def _forward_fake(x: Tensor, weight: Tensor, bias: Tensor | None, entries: Tensor) -> Tensor:
    check_same_device(_forward, x, (x, weight, bias, entries))
    return x.new_empty(x.shape[0], weight.shape[0])


@torch.library.register_fake("fastltc::masked_linear_backward")
def _backward_fake(
    grad_output: Tensor, x: Tensor, weight: Tensor, entries: Tensor, bias_grad: bool
) -> tuple[Tensor, Tensor, Tensor]:
    check_same_device(_backward, x, (grad_output, x, weight, entries))
    return (
        x.new_empty(x.shape),
        weight.new_empty(weight.shape),
        weight.new_empty(weight.shape[0] if bias_grad else 0),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, entries = inputs
    ctx.save_for_backward(x, weight, entries)
    ctx.has_bias = bias is not None


def _gradients(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, entries = ctx.saved_tensors
    arguments = grad_output, x, weight, entries, ctx.has_bias
    if torch.is_grad_enabled():
        grad_x, grad_weight, grad_bias = _backward(*arguments)
    else:
        grad_x, grad_weight, grad_bias = below_autograd(_backward, *arguments)
    return grad_x, grad_weight, grad_bias if ctx.has_bias else None, None


def _setup_second(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.has_bias = inputs[4]
    ctx.set_materialize_grads(False)


def _second_derivatives(
    ctx: Any, wanted_x: Tensor | None, wanted_weight: Tensor | None, wanted_bias: Tensor | None
) -> tuple[Tensor | None, ...]:
    """Differentiate the backward pass: its products are products by the mask's ones again."""
    grad_output, x, weight, entries = ctx.saved_tensors
    wanted_x = torch.zeros_like(x) if wanted_x is None else wanted_x
    wanted_weight = torch.zeros_like(weight) if wanted_weight is None else wanted_weight
    bias = wanted_bias if ctx.has_bias else None
    of_grad = _forward(wanted_x, weight, bias, entries) + _forward(x, wanted_weight, None, entries)
    of_x, of_weight, _ = _backward(grad_output, wanted_x, wanted_weight, entries, False)
    return of_grad, of_x, of_weight, None, None


torch.library.register_autograd("fastltc::masked_linear", _gradients, setup_context=_setup_context)
torch.library.register_autograd(
    "fastltc::masked_linear_backward", _second_derivatives, setup_context=_setup_second
)
compute_in_float32_under_autocast("fastltc::masked_linear")


class _Eager(torch.autograd.Function):
    """The product with gradients, for eager mode; faster than ``register_autograd``'s."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        y: Tensor = below_autograd(_forward, *arguments)
        _setup_context(ctx, arguments, y)
        return y

    backward = staticmethod(_gradients)


def _by_entries(
    x: Tensor, weight: Tensor, bias: Tensor | None, entries: Tensor, traced: bool
) -> Tensor:
    """Call the operator for ``x`` of two dimensions."""
    if traced:
        return _forward(x, weight, bias, entries)
    if torch.is_grad_enabled() and (
        x.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    ):
        return _Eager.apply(x, weight, bias, entries)
    return below_autograd(_forward, x, weight, bias, entries)


# Nanoseconds on one core, fitted to the times of both ways by benchmarks/fit_masked_linear.py
# (docs/kernels.md): what each of `dense_amounts` and `entries_amounts` takes, by whether the dense
# product has AVX-512 (else of Zen 4) and whether a backward pass follows.
_COSTS = {
    (True, False): ((5400, 0.27, 0.0107, 0.021), (5400, 0.035, 0.2, 2.0, 0.4)),
    (True, True): ((37600, 1.31, 0.0304, 0.245), (37400, 0.4, 0.948, 6.9, 1.35)),
    (False, False): ((7000, 0.25, 0.0213, 0.032), (6800, 0.018, 0.216, 1.87, 0.563)),
    (False, True): ((63000, 1.12, 0.0667, 0.31), (58000, 0.2, 0.767, 6.4, 2.07)),
}
# So much quicker must one way look for it to be taken.
MARGIN = 1.1
# What compiled code is made for, whatever batch comes.
_COMPILED_BATCH = 32


def dense_amounts(
    batch: int, outputs: int, inputs: int, itemsize: int = 4
) -> tuple[float, float, float, float]:
    """Return calls, weights, weights and samples, and inputs and outputs of samples."""
    # A register holds so many fewer values as they are wider.
    wider = itemsize / 4
    weights = wider * outputs * inputs
    return 1, weights, batch * weights, wider * batch * (outputs + inputs)


def entries_amounts(
    batch: int, ones: int, outputs: int, inputs: int, itemsize: int = 4
) -> tuple[float, float, float, float, float]:
    """Return calls, weights, inputs and outputs of samples, ones, and ones and registers."""
    wider = itemsize / 4
    lanes = _VECTOR_BYTES // itemsize
    # As the kernel pads the batch: to blocks of one, two or four registers.
    block = lanes if batch <= lanes else 2 * lanes if batch <= 2 * lanes else 4 * lanes
    padded = (batch + block - 1) // block * block
    values = wider * padded * (outputs + inputs)
    return 1, wider * outputs * inputs, values, ones, ones * (padded // lanes)


def prefers_entries(
    batch: int, ones: int, outputs: int, inputs: int, itemsize: int = 4, training: bool = False
) -> bool:
    """Whether going by the ``ones`` of the mask is quicker than the dense product.

    ``itemsize`` is bytes of a value, ``training`` whether a backward pass follows.
    """
    of_dense, of_entries = _COSTS[_DENSE_BY_AVX512, training]
    dense = sum(map(mul, of_dense, dense_amounts(batch, outputs, inputs, itemsize)))
    amounts = entries_amounts(batch, ones, outputs, inputs, itemsize)
    return MARGIN * sum(map(mul, of_entries, amounts)) < dense


@functools.lru_cache(maxsize=1024)
def _remembered(*sizes: Any) -> bool:
    return prefers_entries(*sizes)


def masked_linear(
    x: Tensor,
    weight: Tensor,
    mask: Tensor,
    bias: Tensor | None = None,
    entries: Tensor | None = None,
    by_entries: bool | None = None,
) -> Tensor:
    r"""Multiply by a masked weight: :math:`y = x (W \odot M)^T + b`.

    Goes by the ones of the mask where they are few, and takes the dense product of
    ``weight * mask`` where that is quicker, by ``prefers_entries``: it depends on the sizes,
    the dtype, the processor and whether a gradient is asked for; in compiled code not on the batch.
    On a GPU it takes the dense product unless asked otherwise.
    The two ways round differently. The gradient of the weight off the mask is exactly 0. What
    stands there, and inputs that nothing is connected to, have to be finite.

    Args:
        x: ``[..., I]``, float32 or float64, any strides; half types are computed in float32.
        weight: ``[O, I]``, as that of ``torch.nn.Linear``.
        mask: ``[O, I]``, 0 or 1, of the dtype of ``x`` (or bool, which PyTorch multiplies slowly).
        bias: ``[O]`` or None.
        entries: what :func:`mask_entries` makes of the mask. Without it the list is made in every
            call, which takes longer than the product.
        by_entries: True to go by the ones (on the CPU and on CUDA devices), False to take the dense
            product, None to have it chosen.

    Returns:
        ``[..., O]`` in the dtype of ``x`` (float32 under autocast). Differentiable with respect
        to ``x``, ``weight`` and ``bias`` any number of times. Inside ``torch.func`` and forward
        mode it is the dense product, even if asked to go by the ones. The same bits for any number
        of threads, and for each call on a GPU, where it goes by them.

    Raises:
        ValueError: if a shape or the mask is wrong, or ``entries`` is the list of another mask,
            which is found out on the CPU, outside of compiled code.
        TypeError: if a dtype or a device is wrong.
        RuntimeError: if ``entries`` is not a list for this mask's shape, or if it is to go by the
            ones on a device that has no kernel for that.

    Example:
        >>> import torch
        >>> from fastltc.ops import mask_entries, masked_linear
        >>> mask = torch.rand(8, 5) < 0.2
        >>> y = masked_linear(torch.randn(3, 5), torch.randn(8, 5), mask, None, mask_entries(mask))
        >>> y.shape
        torch.Size([3, 8])
    """
    if x.dtype in HALF_DTYPES or weight.dtype in HALF_DTYPES:
        offset = None if bias is None else bias.float()
        y = masked_linear(x.float(), weight.float(), mask, offset, entries, by_entries)
        return y if torch.is_autocast_enabled(x.device.type) else y.to(x.dtype)
    # What would be broadcast silently; the rest is found out where the product is refused.
    shape = weight.shape
    if mask.shape != shape or len(shape) != 2 or (bias is not None and bias.shape != shape[:1]):
        _refuse(x, weight, mask, bias)
    traced = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
    if entries is None:
        entries = mask_entries(mask)
    elif not (traced or torch._C._are_functorch_transforms_active()):
        check_entries(entries, mask)
    try:
        return _product(x, weight, mask, bias, entries, by_entries, traced)
    except (IndexError, RuntimeError):
        _refuse(x, weight, mask, bias)
        check_has_kernels("masked_linear", x)
        raise


def _chosen(batch: int, entries: Tensor, x: Tensor, weight: Tensor, traced: bool) -> bool:
    if not x.is_cpu:
        # At a few million multiply-adds cuBLAS is bound by its launches, as the sparse kernels are,
        # and has units for matrices. No time of either has been measured.
        return False
    outputs, inputs = weight.shape
    ones = (entries.shape[0] - outputs - inputs - 2) // 3
    # The check of a trace, which runs without gradients, must see the same call.
    tracing = traced and torch._C._get_tracing_state() is not None
    training = (tracing or torch.is_grad_enabled()) and (weight.requires_grad or x.requires_grad)
    sizes = ones, outputs, inputs, x.element_size(), training
    if traced:
        # A choice by the batch would tie the code to some batches.
        return prefers_entries(_COMPILED_BATCH, *sizes)
    return _remembered(batch, *sizes)


def _product(
    x: Tensor,
    weight: Tensor,
    mask: Tensor,
    bias: Tensor | None,
    entries: Tensor,
    by_entries: bool | None,
    traced: bool,
) -> Tensor:
    if x.is_nested or x.layout is not torch.strided:
        return F.linear(x, weight * mask, bias)  # which knows some of them
    flat = x.dim() == 2
    batch = x.shape[0] if flat else math.prod(x.shape[:-1])
    if by_entries is None:
        by_entries = _chosen(batch, entries, x, weight, traced)
    if traced:
        if torch.onnx.is_in_onnx_export():
            by_entries = False
    elif torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        # The dense product has all derivatives.
        by_entries = False
    if not by_entries:
        if not torch._C._is_any_autocast_enabled():
            return F.linear(x, weight * mask, bias)
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x, weight * mask, bias)
    if flat:
        return _by_entries(x, weight, bias, entries, traced)
    y = _by_entries(x.reshape(batch, x.shape[-1]), weight, bias, entries, traced)
    return y.reshape(*x.shape[:-1], weight.shape[0])


def _refuse(x: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None) -> None:
    """Say what is wrong."""
    if weight.dim() != 2:
        raise ValueError(f"weight: expected shape [O, I], got {list(weight.shape)}")
    outputs, inputs = weight.shape
    if mask.shape != weight.shape:
        raise ValueError(
            f"mask: expected shape [O, I] = {[outputs, inputs]}, got {list(mask.shape)}"
        )
    if x.dim() == 0 or x.shape[-1] != inputs:
        raise ValueError(f"x: expected shape [..., I] with I = {inputs}, got {list(x.shape)}")
    if bias is not None and tuple(bias.shape) != (outputs,):
        raise ValueError(f"bias: expected shape [O] = {[outputs]}, got {list(bias.shape)}")
    for name, tensor in (("weight", weight), ("mask", mask), ("bias", bias)):
        if tensor is None:
            continue
        if tensor.device != x.device:
            raise TypeError(
                f"{name}: expected a tensor on {x.device}, where x is, got one on {tensor.device}"
            )
        if tensor.dtype not in (x.dtype, torch.bool if name == "mask" else x.dtype):
            raise TypeError(f"{name}: expected {x.dtype}, the dtype of x, got {tensor.dtype}")
