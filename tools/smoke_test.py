"""Smoke test of an installed fastltc: run by tools/check_packaging.py in fresh environments."""

from __future__ import annotations

import torch
from ncps.torch import LTC as NcpsLTC
from ncps.wirings import AutoNCP

import fastltc
from fastltc import info


def check_installation() -> None:
    """Raise when a part of the installation is missing; print its report."""
    collected = info.collect()
    for part in ("torch", "build", "cpu", "operators"):
        error = collected[part]["error"]
        if error is not None:
            raise RuntimeError(f"{part}: {error}")
    if collected["fastltc"] != fastltc.__version__:
        raise RuntimeError(f"version {fastltc.__version__}, but {collected['fastltc']} installed")
    print(info.format_report(collected))


def check_layer() -> None:
    """Raise when the outputs or gradients of a layer are not those of ncps."""
    torch.manual_seed(0)
    theirs = NcpsLTC(5, AutoNCP(12, 3, seed=1)).double()
    ours = fastltc.LTC(5, AutoNCP(12, 3, seed=1)).double()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(7, 6, 5, dtype=torch.float64)
    outputs = []
    for layer in (theirs, ours):
        output, hx = layer(x)
        (output.square().sum() + hx.sum()).backward()
        outputs.append(output)
    torch.testing.assert_close(outputs[1], outputs[0], rtol=0, atol=1e-10)
    expected = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    actual = {name: p.grad for name, p in ours.named_parameters() if p.grad is not None}
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
    with torch.no_grad():
        lone, _ = ours(x[:1])
    torch.testing.assert_close(lone, outputs[0][:1], rtol=0, atol=1e-10)


if __name__ == "__main__":
    check_installation()
    check_layer()
    print("smoke test passed")
