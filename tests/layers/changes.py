"""What a user may change in a layer, and layers of ncps that follow."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import ncps.torch
import torch
from ncps.wirings import AutoNCP
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

import fastltc

INPUTS, B, T = 3, 4, 5

KINDS: dict[str, Callable[[Any], Any]] = {
    "CfC": lambda module: module.CfC(INPUTS, 8, proj_size=2, backbone_units=6, backbone_layers=2),
    "pure": lambda module: module.CfC(INPUTS, 8, mode="pure", activation="gelu", backbone_units=6),
    "no gate": lambda module: module.CfC(
        INPUTS, 8, mode="no_gate", mixed_memory=True, backbone_units=6
    ),
    "wired": lambda module: module.CfC(INPUTS, AutoNCP(9, 2, seed=3), mixed_memory=True),
    "wired pure": lambda module: module.CfC(
        INPUTS, AutoNCP(9, 2, seed=3), mode="pure", proj_size=3
    ),
    "LTC": lambda module: module.LTC(INPUTS, AutoNCP(9, 2, seed=3)),
    "LTC, mixed memory": lambda module: module.LTC(INPUTS, 5, mixed_memory=True),
}


class LowRank(nn.Linear):
    """A linear layer and a product of two narrow ones, as adapters have them."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features)
        self.load_state_dict(linear.state_dict())
        self.down = nn.Parameter(0.3 * torch.randn(2, linear.in_features))
        self.up = nn.Parameter(0.3 * torch.randn(linear.out_features, 2))

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + input @ self.down.T @ self.up.T


class Doubled(nn.Module):
    def forward(self, value: Tensor) -> Tensor:
        return 2 * value


class DropConnect(nn.Module):
    def forward(self, value: Tensor) -> Tensor:
        return nn.functional.dropout(value, 0.5)


def heads(layer: Any) -> list[nn.Linear]:
    """The linear layers to change: of each cell one that every mode has and, if any, another."""
    cells = [m for m in layer.rnn_cell.modules() if hasattr(m, "ff1")]
    found = [cell.ff1 for cell in cells] + [c.time_b for c in cells if hasattr(c, "time_b")]
    return found + [m for c in cells[:1] if c.backbone for m in c.backbone if hasattr(m, "weight")]


def replace(layer: Any, old: nn.Module, new: nn.Module) -> None:
    for module in layer.modules():
        for name, child in list(module._modules.items()):
            if child is old:
                setattr(module, name, new)


def each(change: Callable[[nn.Linear], Any]) -> Callable[[Any], None]:
    def apply(layer: Any) -> None:
        for linear in heads(layer):
            change(linear)

    return apply


def low_rank(layer: Any) -> None:
    for linear in heads(layer):
        replace(layer, linear, LowRank(linear).double())


def replaced_forward(linear: Any) -> None:
    linear.forward = lambda input: 0.5 * nn.functional.linear(input, linear.weight, linear.bias)


def activations(layer: Any) -> None:
    cell = next(m for m in layer.modules() if hasattr(m, "ff1"))
    cell.tanh = nn.Hardtanh()
    cell.sigmoid = nn.Hardsigmoid()
    if cell.backbone:
        cell.backbone[1] = nn.SELU()


def normalised_backbone(layer: Any) -> None:
    cell = next(m for m in layer.modules() if hasattr(m, "ff1"))
    if cell.backbone:
        cell.backbone.append(nn.LayerNorm(6).double())
    else:
        cell.time_a = nn.Sequential(cell.time_a, nn.LayerNorm(cell.hidden_size).double())


def hooked_activations(layer: Any) -> None:
    cell = next(m for m in layer.modules() if hasattr(m, "ff1"))
    for module in (cell.tanh, cell.sigmoid, *(cell.backbone or ())):
        module.register_forward_hook(lambda module, args, result: 0.9 * result)


def other_projection(layer: Any) -> None:
    layer.fc = nn.Sequential(
        nn.Linear(layer.output_size, 3, bias=False), nn.BatchNorm1d(3), nn.ReLU()
    ).double()


CHANGES: dict[str, Callable[[Any], None]] = {
    "low rank": low_rank,
    "spectral norm": each(parametrizations.spectral_norm),
    "old spectral norm": each(spectral_norm),
    "weight norm": each(parametrizations.weight_norm),
    "old weight norm": each(lambda m: warning_free(weight_norm, m)),
    "pruned": each(lambda m: prune.l1_unstructured(m, "weight", 0.4)),
    "parametrized": each(lambda m: parametrize.register_parametrization(m, "bias", Doubled())),
    "drop connect": each(
        lambda m: parametrize.register_parametrization(m, "weight", DropConnect())
    ),
    "forward hook": each(lambda m: m.register_forward_hook(lambda m, args, result: 2 * result)),
    "forward pre-hook": each(lambda m: m.register_forward_pre_hook(lambda m, args: 0.5 * args[0])),
    "backward hook": each(
        lambda m: m.register_full_backward_hook(
            lambda m, gx, gy: (None if gx[0] is None else 3 * gx[0],)
        )
    ),
    "backward pre-hook": each(
        lambda m: m.register_full_backward_pre_hook(lambda m, gy: (3 * gy[0],))
    ),
    "replaced forward": each(replaced_forward),
    "no bias": each(lambda m: setattr(m, "bias", None)),
    "activations": activations,
    "hooked activations": hooked_activations,
    "layer norm": normalised_backbone,
    "projection": other_projection,
}


def warning_free(function: Callable[..., Any], *arguments: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*arguments)


def positive_hook(cell: Any) -> None:
    cell.make_positive_fn.register_forward_hook(lambda module, args, result: 1.5 * result)


def positive_function(cell: Any) -> None:
    cell.make_positive_fn = nn.ELU(0.5)


def other_softplus(cell: Any) -> None:
    cell.make_positive_fn.beta = 3.0


LTC_CHANGES: dict[str, Callable[[Any], None]] = {
    "spectral norm": lambda cell: parametrizations.spectral_norm(cell, "w"),
    "old spectral norm": lambda cell: spectral_norm(cell, "w"),
    "weight norm": lambda cell: parametrizations.weight_norm(cell, "sensory_w"),
    "old weight norm": lambda cell: warning_free(weight_norm, cell, "sensory_w"),
    "pruned": lambda cell: prune.l1_unstructured(cell, "w", 0.4),
    "pruned map": lambda cell: prune.l1_unstructured(cell, "input_w", 1),
    "parametrized": lambda cell: parametrize.register_parametrization(cell, "cm", Doubled()),
    "positive hook": positive_hook,
    "positive function": positive_function,
    "softplus": other_softplus,
}

# A wired cell of mode "pure" has no activations and no gates.
CASES = [
    (kind, name)
    for kind in KINDS
    for name in (LTC_CHANGES if "LTC" in kind else CHANGES)
    if kind != "wired pure" or name not in ("activations", "hooked activations", "layer norm")
]


class LiveParameters(dict[str, Tensor]):
    """The ``_params`` of ncps, if it followed what torch puts in the place of a parameter."""

    def __init__(self, cell: nn.Module) -> None:
        self.cell = cell

    def __missing__(self, name: str) -> Tensor:
        # Once a call: see recompute.
        self[name] = value = getattr(self.cell, name)
        return value


def change(layer: Any, name: str) -> None:
    torch.manual_seed(1)
    if "LTC" in type(layer).__name__:
        LTC_CHANGES[name](layer.rnn_cell)
    else:
        CHANGES[name](layer)


def follow(layer: Any) -> Any:
    """Have ncps follow what it takes no notice of, or fails with in the second step."""
    cells = [m for m in layer.modules() if isinstance(m, ncps.torch.LTCCell)]
    for cell in cells:
        cell._params = LiveParameters(cell)
    masked = [cell for cell in layer.modules() if getattr(cell, "sparsity_mask", None) is not None]
    linears = [linear for c in masked for n, linear in c.named_children() if n in ("ff1", "ff2")]

    def recompute(module: nn.Module, args: Any) -> None:
        for cell in cells:
            cell._params.clear()
        for inner in (*cells, *linears):
            for hook in list(inner._forward_pre_hooks.values()):
                if isinstance(hook, (prune.BasePruningMethod, WeightNorm)) or (
                    isinstance(hook, SpectralNorm) and inner in cells
                ):
                    hook(inner, None)

    layer.register_forward_pre_hook(recompute)
    return layer


def train(layer: Any, x: Tensor, steps: int = 3) -> list[Tensor]:
    """Return the outputs of some training steps, the gradients and the values they end with."""
    optimizer = torch.optim.SGD([p for p in layer.parameters() if p.requires_grad], lr=0.05)
    results = []
    n = layer.state_size
    hx: Any = torch.zeros(B, n, dtype=x.dtype)
    for step in range(steps):
        torch.manual_seed(step)
        optimizer.zero_grad()
        output, hn = layer(x, (hx, hx) if layer.use_mixed else hx)
        (output.square().sum() + sum(h.sum() for h in (hn if layer.use_mixed else [hn]))).backward()
        results += [output.detach().clone()]
        optimizer.step()
    named = sorted(layer.named_parameters())
    results += [p.grad for _, p in named if p.grad is not None]
    return results + [p.detach() for _, p in named]


def pair(kind: str) -> tuple[Any, Any, Tensor]:
    """Return a layer of ncps, one of fastltc with its values, and an input, in float64."""
    torch.manual_seed(0)
    theirs, ours = KINDS[kind](ncps.torch).double(), KINDS[kind](fastltc).double()
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours, torch.randn(B, T, INPUTS, dtype=torch.float64)


def compare(actual: list[Tensor], expected: list[Tensor]) -> None:
    assert len(actual) == len(expected)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-9, atol=1e-10)
