"""Several processes that train one model, as ``torchrun`` starts them.

Each process takes its share of every batch; gradients are summed, not averaged over equal shares,
and batch norms see the whole batch, so that the result is that of one process up to rounding.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Group:
    """The processes of a run: how many there are, and which is this one."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def seed(self, seed: int, epoch: int) -> None:
        """Gives each of several processes its own draws, for augmentation."""
        if self.size > 1:
            torch.manual_seed((seed * 1_000_003 + epoch) * self.size + self.rank)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()

    def share(self, batch: Tensor) -> Tensor:
        """The part of a batch that this process computes."""
        return batch.tensor_split(self.size)[self.rank]

    def sums(self, *values: Tensor) -> list[float]:
        """Each number summed over the processes."""
        both = torch.stack([value.double() for value in values])
        if self.size > 1:
            dist.all_reduce(both)
        return [float(value) for value in both]

    def sum_gradients(self, model: nn.Module) -> None:
        """Sums the gradients of all processes; a process without examples adds nothing."""
        if self.size == 1:
            return
        trained = [p for p in model.parameters() if p.requires_grad]
        flat = torch.cat(
            [(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in trained]
        )
        dist.all_reduce(flat)
        for parameter, part in zip(trained, flat.split([p.numel() for p in trained]), strict=True):
            parameter.grad = part.view_as(parameter).to(parameter.dtype)

    def synchronise_batch_norm(self, model: nn.Module) -> None:
        """Lets batch norms take their statistics over all processes."""
        if self.size == 1:
            return
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                # Torch's SyncBatchNorm is for CUDA only.
                module.__dict__["forward"] = functools.partial(_batch_norm_over_processes, module)


class _Sum(torch.autograd.Function):
    """A sum over the processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Any) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return cast(Tensor, total)


def _batch_norm_over_processes(module: Any, x: Tensor) -> Tensor:
    """The forward of a batch norm, with sums over all processes.

    As ``torch.nn.SyncBatchNorm``, in training only: every process evaluates by itself.
    """
    if not module.training:
        return cast(Tensor, type(module).forward(module, x))
    module._check_input_dim(x)
    tracked = module.track_running_stats and module.running_mean is not None
    if tracked:
        module.num_batches_tracked += 1
    kind = x.dtype
    if kind in (torch.float16, torch.bfloat16):
        # Like torch's: mixed precision ends where sums begin.
        x = x.float()
    over = [axis for axis in range(x.ndim) if axis != 1]
    own = x.numel() // x.shape[1]
    # One message for the sum and the count; its backward is a sum as well.
    total: Tensor = _Sum.apply(torch.cat([x.sum(over), x.new_tensor([own])]))
    mean, count = total[:-1] / total[-1], total[-1].detach()
    # Few values in all are few in each process, so all of them come here or none does; with
    # more there is no need to wait for a device.
    known = 2 if own > 1 else int(count)
    if known == 1:
        raise ValueError(
            "Expected more than 1 value per channel when training, got input size "
            f"{x.shape} and none in the other processes"
        )
    shape = [1, -1] + [1] * (x.ndim - 2)
    centred = x - mean.view(shape)
    variance: Tensor = _Sum.apply(centred.square().sum(over)) / count
    if tracked and known:
        with torch.no_grad():
            share = module.momentum
            if share is None:  # the mean of all batches
                share = 1 / int(module.num_batches_tracked)
            for held, found in (
                (module.running_mean, mean),
                (module.running_var, variance * count / (count - 1)),
            ):
                held.lerp_(found.detach().to(held.dtype), share)
    scaled = centred * torch.rsqrt(variance + module.eps).view(shape)
    if module.weight is not None:
        scaled = scaled * module.weight.view(shape)
    if module.bias is not None:
        scaled = scaled + module.bias.view(shape)
    return scaled.to(kind)


@contextmanager
def processes(device: torch.device) -> Iterator[Group]:
    """The group that ``torchrun`` has started this process in, or one of a single process."""
    ours = not dist.is_initialized()
    if ours and os.environ.get("WORLD_SIZE", "1") == "1":
        yield Group()
        return
    if ours:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Group(dist.get_rank(), dist.get_world_size())
    finally:
        if ours:
            dist.destroy_process_group()
