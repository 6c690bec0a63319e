"""What all layers have in common: a cell over a batch of sequences."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fastltc.reference.memory import memory_cell


def run_sequence(
    step: Callable[[int, Tensor, Tensor, Tensor], Tensor],
    read_out: Callable[[Tensor], Tensor],
    x: Tensor,
    h0: Tensor | None,
    timespans: Tensor | None,
    lengths: Tensor | None,
    resets: Tensor | None,
    reset_to_zero: bool,
    memory: Sequence[Tensor] | None,
    return_sequences: bool,
    neurons: int,
) -> tuple[Tensor, Tensor]:
    """Run a cell over a batch of sequences, behind the memory cell of mixed memory if there is one.

    ``step`` is the cell: it takes the number of the step, the input ``[B, I]``, the state
    ``[B, N]`` and the time step ``[B, 1]`` or ``[B, N]``, and returns the next state. ``read_out``
    gives the output ``[B, M]`` of a state. The rest is as :func:`fastltc.reference.ltc` has it.
    """
    batch, time, _ = x.shape
    if timespans is None:
        timespans = x.new_ones(batch, time)
    timespans = bounded(timespans)
    if timespans.dim() == 2:
        timespans = timespans.unsqueeze(-1)
    if lengths is None:
        valid = torch.ones(batch, time, 1, dtype=torch.bool, device=x.device)
    else:
        steps = torch.arange(time, device=x.device)
        valid = (steps < lengths.to(x.device).unsqueeze(-1)).unsqueeze(-1)
        x, timespans = torch.where(valid, x, 0), torch.where(valid, timespans, 0)

    width = neurons if memory is None else 2 * neurons
    first = (x.new_zeros(batch, width) if h0 is None else h0).tensor_split([neurons], 1)
    h, c = first
    if reset_to_zero:
        first = torch.zeros_like(h), torch.zeros_like(c)
    outputs = []
    for t in range(time):
        if resets is not None:
            anew = resets[:, t : t + 1] & valid[:, t]
            h, c = torch.where(anew, first[0], h), torch.where(anew, first[1], c)
        v = h
        if memory is not None:
            v, remembered = memory_cell(x[:, t], h, c, *memory)
            c = torch.where(valid[:, t], remembered, c)
        h = torch.where(valid[:, t], step(t, x[:, t], v, timespans[:, t]), h)
        if return_sequences:
            outputs.append(torch.where(valid[:, t], read_out(h), 0))

    hn = torch.cat([h, c], 1)
    if not return_sequences:
        return read_out(h), hn
    return (torch.stack(outputs, 1) if outputs else read_out(h).unsqueeze(1)[:, :0]), hn


def bounded(timespans: Tensor) -> Tensor:
    """Return time steps of at most the root of the largest number, which is the limit to rounding.

    Their products with what a layer computes stay finite.
    """
    # float16 has no room above it, and is not squared.
    return timespans.clamp(max=max(65504.0, torch.finfo(timespans.dtype).max ** 0.5))
