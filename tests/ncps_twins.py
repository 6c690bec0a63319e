"""Layers of ncps and of fastltc with the same parameters, and a comparison of what they do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ncps.torch
import torch
from ncps.wirings import NCP, AutoNCP, FullyConnected, Random
from torch import Tensor, nn

import fastltc
from layers import assert_all_close

WIRINGS: dict[str, Callable[[], Any]] = {
    "fully connected": lambda: FullyConnected(7, 3),
    "one neuron": lambda: FullyConnected(1),
    "no self connections": lambda: FullyConnected(5, 5, self_connections=False),
    "random": lambda: Random(31, 4, sparsity_level=0.7),
    "auto ncp": lambda: AutoNCP(19, 2),
    "ncp": lambda: NCP(9, 6, 2, 4, 3, 5, 3),
}


def twins(
    units: Callable[[], Any] | int, inputs: int, kind: str = "LTC", **options: Any
) -> tuple[nn.Module, nn.Module]:
    """Make a layer or cell of ncps and its twin in float64, with random parameters."""

    def make(package: Any) -> nn.Module:
        size = units() if callable(units) else units
        sizes = (size, inputs) if kind == "LTCCell" else (inputs, size)
        return getattr(package, kind)(*sizes, **options).double()

    theirs, ours = make(ncps.torch), make(fastltc)
    implicit = options.get("implicit_param_constraints", kind == "LTC")
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            if not parameter.requires_grad or (name.startswith("lstm") and "LTC" in kind):
                continue
            noise = torch.randn_like(parameter)
            name = name.rpartition(".")[2]
            if "CfC" in kind:
                parameter.add_(noise * 0.3)
            elif implicit or name in ("vleak", "mu", "erev", "sensory_mu", "sensory_erev"):
                parameter.add_(noise)
            else:
                parameter.mul_(torch.exp(noise * 0.3))
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return theirs, ours


def flat(result: Any) -> list[Tensor]:
    """Return the tensors of nested tuples."""
    if isinstance(result, Tensor):
        return [result]
    return [tensor for part in result for tensor in flat(part)]


def check_twins(
    theirs: nn.Module, ours: nn.Module, *arguments: Any, tolerance: float = 1e-10
) -> None:
    """Compare outputs and the gradients, by name, of all parameters and floating arguments."""

    def run(module: nn.Module) -> dict[str, Tensor]:
        def leaf(value: Any) -> Any:
            if isinstance(value, Tensor) and value.is_floating_point():
                return value.detach().clone().requires_grad_()
            return tuple(leaf(v) for v in value) if isinstance(value, tuple) else value

        leaves = [leaf(value) for value in arguments]
        outputs = flat(module(*leaves))
        named = {
            f"argument {i}": v
            for i, v in enumerate(flat([v for v in leaves if isinstance(v, (Tensor, tuple))]))
        }
        named.update({n: p for n, p in module.named_parameters() if p.requires_grad})
        generator = torch.Generator().manual_seed(weights_seed)
        total = sum(
            (o * torch.randn(o.shape, generator=generator, dtype=torch.float64)).sum()
            for o in outputs
        )
        grads = torch.autograd.grad(
            total, list(named.values()), allow_unused=True, materialize_grads=True
        )
        results = {f"output {i}": o.detach() for i, o in enumerate(outputs)}
        return {**results, **{f"grad of {n}": g for n, g in zip(named, grads, strict=True)}}

    weights_seed = int(torch.randint(2**31, ()))
    assert_all_close(run(ours), run(theirs), tolerance)
