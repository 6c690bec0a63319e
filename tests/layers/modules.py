"""The modules of all cells, by what a layer is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from ncps.wirings import AutoNCP
from torch import Tensor, nn

import fastltc
from fastltc import reference
from fastltc.ops import LTC_PARAMETERS


@dataclass(frozen=True)
class Kind:
    """A way to make layers; a call may change its options."""

    cell: str
    wired: bool = True
    options: dict[str, Any] = field(default_factory=dict)

    def __call__(self, inputs: int, neurons: int, package: Any = fastltc, **options: Any) -> Any:
        units = AutoNCP(neurons, 2) if self.wired else neurons
        return getattr(package, self.cell)(inputs, units, **{**self.options, **options})

    def moved(self, inputs: int, neurons: int, **options: Any) -> Any:
        """Make one for inference in float64 with other parameters than the first."""
        layer = self(inputs, neurons, **options).double().eval()
        with torch.no_grad():
            for parameter in layer.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * 0.3)
        return layer


KINDS = {
    "LTC": Kind("LTC"),
    "LTC, mixed": Kind("LTC", options={"mixed_memory": True}),
    "CfC, wired": Kind("CfC", options={"proj_size": 3}),
    "CfC, pure": Kind("CfC", options={"mode": "pure"}),
    "CfC, mixed": Kind("CfC", options={"mixed_memory": True}),
    "CfC, plain": Kind("CfC", False, {"backbone_layers": 2, "backbone_units": 6, "proj_size": 3}),
    "CfC, plain pure": Kind(
        "CfC", False, {"backbone_units": 6, "mode": "pure", "activation": "gelu"}
    ),
}


# Layers with default options.
BARE_KINDS = {"LTC": Kind("LTC"), "CfC, wired": Kind("CfC"), "CfC, plain": Kind("CfC", False)}
WITH_PROJECTIONS = BARE_KINDS | {
    "CfC, wired, projected": Kind("CfC", options={"proj_size": 3}),
    "CfC, plain, projected": Kind("CfC", False, {"proj_size": 3}),
}


def over_kinds(*names: str, kinds: dict[str, Kind] = KINDS) -> Any:
    """Parametrize a test by ``kind``, over all or those of these names."""
    chosen = {name: kinds[name] for name in names or kinds}
    return pytest.mark.parametrize("kind", chosen.values(), ids=chosen)


# One layer of each cell whose parameters have masks.
wired_kinds = over_kinds("LTC", "CfC, wired")
bare_kinds = over_kinds(kinds=BARE_KINDS)
with_projections = over_kinds(kinds=WITH_PROJECTIONS)


def by_reference(
    layer: Any, x: Tensor, timespans: Tensor, hx: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Run the reference of a layer with ``[B, T]`` or ``[B, T, N]`` time steps."""
    cell = layer.rnn_cell
    if isinstance(layer, fastltc.LTC):
        return reference.ltc(
            x,
            hx,
            timespans,
            mask=cell.sparsity_mask,
            sensory_mask=cell.sensory_sparsity_mask,
            output_size=layer.motor_size,
            **{name: getattr(cell, name) for name in LTC_PARAMETERS},
        )
    cells = cell._layers if layer.wired_mode else [cell]
    return reference.cfc(
        x,
        hx,
        timespans,
        parameters=[p for c in cells for p in c._operator_parameters(c._find_parts())],
        masks=[c.sparsity_mask for c in cells] if layer.wired_mode else [],
        layer_sizes=[c.hidden_size for c in cells],
        backbone_layers=0 if layer.wired_mode else cell.backbone_layers,
        mode=cells[0].mode,
    )


def some_weight(layer: nn.Module) -> str:
    """Return the name of a parameter that every layer of its kind has."""
    names = dict(layer.named_parameters())
    return next(name for name in names if name.endswith(("rnn_cell.w", "ff1.weight")))


def masked_parameters(layer: nn.Module) -> list[tuple[nn.Parameter, Tensor]]:
    """Return the parameters that have a mask, and it."""
    found = []
    for cell in layer.modules():
        mask = getattr(cell, "sparsity_mask", None)
        if mask is not None and hasattr(cell, "ff1"):
            heads = [getattr(cell, name, None) for name in ("ff1", "ff2")]
            found += [(head.weight, mask) for head in heads if head is not None]
        elif mask is not None:
            for prefix, exists in (("", mask), ("sensory_", cell.sensory_sparsity_mask)):
                names = [prefix + name for name in ("sigma", "mu", "w", "erev")]
                found += [(getattr(cell, name), exists) for name in names]
    return found


def other_state(layer: nn.Module) -> dict[str, Tensor]:
    """Return the state of a layer with other masks and other parameters."""
    state = {name: value + 0.1 for name, value in layer.state_dict().items()}
    for name, value in state.items():
        if name.endswith("_mask"):
            state[name] = (torch.rand_like(value) < 0.5).to(value)
    return state
