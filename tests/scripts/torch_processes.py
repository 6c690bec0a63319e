"""A model with liquid layers in two processes: DDP, FSDP2, and one layer in shared memory.

Prints a line for each that computes what one process does.
"""

from __future__ import annotations

import copy
import sys
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from ncps.wirings import AutoNCP
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

import fastltc

BATCH, STEPS = 6, 3


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(3, 4)
        self.liquid = fastltc.LTC(4, AutoNCP(12, 4), mixed_memory=True)
        self.closed = fastltc.CfC(4, AutoNCP(12, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.closed(self.liquid(self.encoder(x))[0])[0]


def train(model: nn.Module, x: Tensor) -> list[Tensor]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    outputs = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        output = model(x)
        output.square().mean().backward()
        optimizer.step()
        outputs.append(output.detach())
    return outputs


def work(rank: int, store: str, shared: nn.Module) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    torch.manual_seed(0)
    whole = Model().double()
    x = torch.randn(BATCH, 5, 3).double()
    mine = slice(rank * BATCH // 2, (rank + 1) * BATCH // 2)
    # Both average the gradients of the processes.
    sharded: Any = copy.deepcopy(whole)
    mesh = init_device_mesh("cpu", (2,))
    for layer in (sharded.liquid, sharded.closed, sharded):
        fully_shard(layer, mesh=mesh)
    wrapped = DistributedDataParallel(copy.deepcopy(whole))
    expected = train(whole, x)
    for name, model in (("DDP", wrapped), ("FSDP2", sharded)):
        for actual, wanted in zip(train(model, x[mine]), expected, strict=True):
            torch.testing.assert_close(actual, wanted[mine], rtol=0, atol=1e-10)
        assert not torch.allclose(expected[0], expected[-1])
        if rank == 0:
            print(name)
    dist.destroy_process_group()
    if rank == 0:
        with torch.no_grad():
            shared.rnn_cell.w.fill_(0.5)


def main() -> None:
    shared = fastltc.LTC(3, AutoNCP(8, 2)).share_memory()
    mp.spawn(work, (sys.argv[1], shared), nprocs=2)
    assert (shared.rnn_cell.w == 0.5).all()
    shared(torch.randn(2, 4, 3))
    print("shared memory")


def load() -> None:
    """Run a layer in workers that are forked after it has used several threads."""
    torch.set_num_threads(2)
    layer, x = fastltc.LTC(3, AutoNCP(16, 2)), torch.randn(64, 5, 3)
    expected = layer(x)[0].detach()

    def features(samples: list[tuple[Tensor]]) -> Tensor:
        with torch.no_grad():
            return layer(torch.stack([sample for (sample,) in samples]))[0]

    loader = DataLoader(TensorDataset(x), batch_size=32, num_workers=1, collate_fn=features)
    torch.testing.assert_close(torch.cat(list(loader)), expected)
    print("DataLoader")


if __name__ == "__main__":
    load()
    main()
