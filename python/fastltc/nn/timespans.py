"""The shapes in which time steps may be given, brought into the one the operators take."""

from __future__ import annotations

import math
from numbers import Real

import torch
from torch import Tensor, strided
from torch.nn.utils.rnn import PackedSequence

from fastltc.nn.checks import check_dense
from fastltc.ops.sequence import HALF_DTYPES


def _dtype(like: Tensor) -> torch.dtype:
    """Return the dtype the layer computes in, which for half types is float32."""
    return torch.float32 if like.dtype in HALF_DTYPES else like.dtype


def _constant(name: str, seconds: float, batch: int, time: int, like: Tensor) -> Tensor | None:
    if not isinstance(seconds, Real):
        raise TypeError(f"{name}: expected a number or a tensor, got {type(seconds).__name__}")
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{name}: expected a finite time step of 0 or more, got {seconds}")
    if seconds == 1:
        return None
    traced = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
    if batch == 1 == time and not traced:
        # A view would take a step of a cell 6 us more; what is compiled or traced is for any batch.
        return like.new_full((1, 1), seconds, dtype=_dtype(like))
    return like.new_full((), seconds, dtype=_dtype(like)).expand(batch, time)


def timespans_like(name: str, timespans: Tensor, like: Tensor) -> Tensor:
    """Return them in the dtype of the sums; time stamps often come as float64 or integers."""
    if timespans.layout is not strided:
        check_dense(name, timespans)
    if timespans.dtype == torch.bool or timespans.dtype.is_complex:
        raise TypeError(f"{name}: expected a real dtype, got {timespans.dtype}")
    if timespans.device != like.device:
        raise TypeError(
            f"{name}: expected a tensor on {like.device}, where the input is, got one on "
            f"{timespans.device}"
        )
    dtype = _dtype(like)
    return timespans if timespans.dtype == dtype else timespans.to(dtype)


def layer_timespans(
    timespans: Tensor | float | None,
    batch: int,
    time: int,
    neurons: int,
    batch_first: bool,
    batched: bool,
    like: Tensor,
) -> Tensor | None:
    """Bring the time steps of a layer into ``[B, T]`` or ``[B, T, N]``; None if all are 1.

    The axes of batch and time stand in the order of the input's, and the time axis must have all T
    steps. That settles the shapes that could be read in two ways: ``[T, T]`` is ``(B, T)`` with
    ``batch_first=True`` and ``(T, B)`` without, and for unbatched input the first axis is time. B
    may be 1 for all samples. ``like`` gives dtype and device.
    """
    if timespans is None:
        return None
    if not isinstance(timespans, Tensor):
        return _constant("timespans", timespans, batch, time, like)
    given = timespans = timespans_like("timespans", timespans, like)
    if timespans.dim() == 0:
        return timespans.expand(batch, time)
    if not batched:
        timespans = timespans.unsqueeze(0)
    elif not batch_first and timespans.dim() > 1:
        timespans = timespans.transpose(0, 1)
    if timespans.dim() == 3 and timespans.shape[2] == 1:
        timespans = timespans.squeeze(2)
    shape = timespans.shape
    if (
        len(shape) not in (2, 3)
        or (shape[0] != batch and shape[0] != 1)
        or shape[1] != time
        or (len(shape) == 3 and shape[2] != neurons)
    ):
        axes = ("B, T" if batch_first else "T, B") if batched else "T"
        expected = f"({axes if batched else 'T,'}), ({axes}, 1) or ({axes}, N)"
        raise ValueError(
            f"timespans: expected a number or a tensor of shape {expected} with B = {batch} (or "
            f"1), T = {time}, N = {neurons}, got shape {tuple(given.shape)}"
        )
    if shape[0] != batch:
        timespans = timespans.expand(batch, *shape[1:])
    return timespans


def cell_timespans(
    elapsed_time: Tensor | float,
    batch: int,
    neurons: int,
    like: Tensor,
    name: str = "elapsed_time",
) -> Tensor | None:
    """Bring the elapsed time of a cell into the shape ``[B, 1]`` or ``[B, 1, N]``; None if it is 1.

    One axis is always that of the samples, also where B equals N. ``like`` gives dtype and device.
    """
    if not isinstance(elapsed_time, Tensor):
        return _constant(name, elapsed_time, batch, 1, like)
    elapsed_time = timespans_like(name, elapsed_time, like)
    shape = tuple(elapsed_time.shape)
    if shape in ((), (1,), (1, 1)):
        return elapsed_time.reshape(1, 1).expand(batch, 1)
    if shape in ((batch,), (batch, 1)):
        return elapsed_time.reshape(batch, 1)
    if shape in ((batch, neurons), (1, neurons)):
        return elapsed_time.unsqueeze(1).expand(batch, 1, neurons)
    raise ValueError(
        f"{name}: expected a number or a tensor of shape (B,), (B, 1), (B, N) or (1, N) "
        f"with B = {batch}, N = {neurons}, got shape {shape}"
    )


def check_packed(name: str, given: PackedSequence, packed: PackedSequence) -> None:
    """Raise ValueError if what belongs to the steps is not packed as the input is."""
    if not torch.equal(given.batch_sizes, packed.batch_sizes):
        raise ValueError(
            f"{name}: expected the batch sizes of the input, "
            f"{packed.batch_sizes.tolist()}, got {given.batch_sizes.tolist()}"
        )


def layer_lengths(
    lengths: Tensor | list[int] | int | None, batch: int, batched: bool, device: torch.device
) -> Tensor | None:
    """Bring the lengths of the samples into an int64 tensor of shape ``[B]``."""
    if lengths is None:
        return None
    try:
        lengths = torch.as_tensor(lengths)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(
            f"lengths: expected a tensor or list of integers, got {type(lengths).__name__}"
        ) from None
    check_dense("lengths", lengths)
    if lengths.numel() and (
        lengths.dtype == torch.bool or lengths.is_floating_point() or lengths.is_complex()
    ):
        raise TypeError(f"lengths: expected integers, got {lengths.dtype}")
    expected = (batch,) if batched else ()
    if tuple(lengths.shape) != expected:
        raise ValueError(
            f"lengths: expected shape {expected}, one integer per sample, got "
            f"{tuple(lengths.shape)}"
        )
    return lengths.to(device, torch.int64).reshape(batch)
