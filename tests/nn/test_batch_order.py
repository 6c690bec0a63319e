"""A sample's bits do not depend on its place in the batch.

Few samples, what is left over of a register, and several registers have ways of their own.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fastltc import LTC, CfC
from fastltc.wirings import AutoNCP, FullyConnected

LAYERS: dict[str, Any] = {
    "LTC": lambda: LTC(3, FullyConnected(9)),
    "NCP": lambda: LTC(3, AutoNCP(14, 2)),
    "CfC": lambda: CfC(3, 9),
    "wired CfC": lambda: CfC(3, AutoNCP(14, 2)),
}


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("batch", [2, 4, 5, 9, 17, 20, 67])
@pytest.mark.parametrize("trained", [False, True])
def test_order(kind: str, batch: int, trained: bool) -> None:
    layer = LAYERS[kind]()
    x, timespans = torch.randn(batch, 6, 3), torch.rand(batch, 6)
    order = torch.randperm(batch)
    results = []
    for place in (torch.arange(batch), order):
        given = x[place].requires_grad_(trained)
        with torch.set_grad_enabled(trained):
            output, state = layer(given, timespans=timespans[place])
        found = [output, state]
        if trained:
            found += torch.autograd.grad(output.square().sum(), [given])
        back = place.argsort()
        results.append([one.detach()[back] for one in found])
    for first, other in zip(*results, strict=True):
        assert torch.equal(first, other)
