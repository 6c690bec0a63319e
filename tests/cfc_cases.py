"""Random CfC layers, ways to run one by the operator and by the reference, and twins of ncps's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import ncps.torch
import torch
from torch import Tensor, nn

import fastltc
from fastltc import reference
from fastltc.ops import CFC_ACTIVATIONS, CFC_MODES, cfc
from ltc_cases import assert_all_close, random_memory, with_gradients


@dataclass
class CfcCase:
    """Arguments of a layer; masked-out weights are NaN."""

    data: dict[str, Tensor | None]
    parameters: dict[str, Tensor]
    lengths: Tensor | None
    masks: list[Tensor]
    dropout: Tensor | None
    options: dict[str, Any] = field(default_factory=dict)
    memory: dict[str, Tensor] = field(default_factory=dict)

    @property
    def leaves(self) -> dict[str, Tensor | None]:
        return {**self.data, **self.parameters, **self.memory}

    def with_(self, **changes: Any) -> CfcCase:
        """Return a copy with other data, lengths, dropout or options."""
        data, options, rest = dict(self.data), dict(self.options), {}
        for name, value in changes.items():
            if name in data:
                data[name] = value
            elif name in ("lengths", "dropout", "masks", "parameters"):
                rest[name] = value
            else:
                options[name] = value
        return replace(self, data=data, options=options, **rest)

    def map(self, change: Callable[[Tensor], Tensor]) -> CfcCase:
        """Return a copy whose floating-point tensors are changed."""

        def each(tensors: dict[str, Any]) -> dict[str, Any]:
            return {k: None if t is None else change(t) for k, t in tensors.items()}

        return replace(
            self,
            data=each(self.data),
            parameters=each(self.parameters),
            memory=each(self.memory),
        )

    def to(self, dtype: torch.dtype) -> CfcCase:
        case = self.map(lambda t: t.detach().to(dtype))
        case.masks = [m.to(dtype) for m in self.masks]
        case.dropout = None if self.dropout is None else self.dropout.to(dtype)
        return case

    def requiring_grad(self) -> CfcCase:
        return self.map(lambda t: t.detach().requires_grad_())


def random_cfc(
    batch: int = 3,
    time: int = 5,
    inputs: int = 4,
    layer_sizes: Sequence[int] = (5, 3, 2),
    *,
    density: float | None = 0.5,
    mode: str = "default",
    activation: str = "lecun_tanh",
    backbone_layers: int = 0,
    units: int = 6,
    dropout: float = 0.0,
    h0: bool = True,
    timespans: str | None = "BT",
    lengths: bool = False,
    memory: bool = False,
    dtype: torch.dtype = torch.float64,
    poison: bool = True,
    **options: Any,
) -> CfcCase:
    """Draw a layer and its data; with ``density=None`` or a backbone it has no masks."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64)

    parameters: dict[str, Tensor] = {}
    masks: list[Tensor] = []

    def linear(name: str, outputs: int, fan_in: int, mask: Tensor | None = None) -> None:
        weight = normal(outputs, fan_in) * (1.5 / fan_in**0.5)
        if mask is not None and poison:
            weight = torch.where(mask == 1, weight, torch.nan)
        parameters[f"{name}.weight"], parameters[f"{name}.bias"] = weight, normal(outputs) * 0.3

    neurons = sum(layer_sizes)
    fan_in = inputs
    if backbone_layers:
        density, fan_in = None, inputs + neurons
    for layer in range(backbone_layers):
        linear(f"backbone.{layer}", units, fan_in)
        fan_in = units
    for layer, size in enumerate(layer_sizes):
        own = fan_in if backbone_layers else fan_in + size
        mask = None
        if density is not None:
            mask = (torch.rand(size, own) < density).double()
            masks.append(mask)
        linear(f"layer_{layer}.ff1", size, own, mask)
        if mode == "pure":
            parameters[f"layer_{layer}.w_tau"] = normal(1, size) * 0.5
            parameters[f"layer_{layer}.A"] = normal(1, size)
        else:
            linear(f"layer_{layer}.ff2", size, own, mask)
            linear(f"layer_{layer}.time_a", size, own)
            linear(f"layer_{layer}.time_b", size, own)
        fan_in = size
    shape = {"BT": (batch, time), "BTN": (batch, time, neurons), None: None}[timespans]
    data = {
        "x": normal(batch, time, inputs),
        "h0": normal(batch, neurons * (1 + memory)) * 0.5 if h0 else None,
        "timespans": torch.rand(*shape, dtype=torch.float64) * 2 if shape is not None else None,
    }
    if shape is not None and data["timespans"].numel():
        data["timespans"].view(-1)[0] = 0.0
    steps = None
    if lengths:
        steps = torch.randint(0, time + 1, (batch,))
        behind = torch.arange(time) >= steps[:, None]
        data["x"][behind] = torch.nan
        if shape is not None:
            data["timespans"][behind] = torch.nan
    factors = None
    if dropout and backbone_layers > 1:
        kept = torch.rand(backbone_layers - 1, batch, time, units) >= dropout
        factors = kept.double() / (1 - dropout)
    options = {
        "layer_sizes": list(layer_sizes),
        "backbone_layers": backbone_layers,
        "mode": mode,
        "activation": activation,
        "return_sequences": True,
        **options,
    }
    remembered = random_memory(inputs, neurons) if memory else {}
    return CfcCase(data, parameters, steps, masks, factors, options, remembered).to(dtype)


def run_reference(case: CfcCase) -> tuple[Tensor, Tensor]:
    options = {k: v for k, v in case.options.items() if k != "time_major"}
    return reference.cfc(
        **case.data,
        lengths=case.lengths,
        parameters=list(case.parameters.values()),
        masks=case.masks,
        dropout=case.dropout,
        memory=list(case.memory.values()) or None,
        **options,
    )


def operator_arguments(case: CfcCase) -> tuple[Any, ...]:
    """Return the leading arguments of fastltc.ops.cfc."""
    return *case.data.values(), case.lengths, list(case.parameters.values()), case.masks


def run_operator(case: CfcCase) -> tuple[Tensor, Tensor]:
    memory = list(case.memory.values()) or None
    return cfc(*operator_arguments(case), dropout=case.dropout, memory=memory, **case.options)


def raw_arguments(case: CfcCase, save_states: bool) -> tuple[Any, ...]:
    """Return the arguments of torch.ops.fastltc.cfc_forward."""
    o = case.options
    codes = CFC_MODES.index(o["mode"]), CFC_ACTIVATIONS.index(o["activation"])
    return (
        *case.data.values(),
        *(case.lengths, list(case.parameters.values()), list(case.memory.values()), case.masks),
        *(case.dropout, o["layer_sizes"], o["backbone_layers"], *codes),
        *(o["return_sequences"], o.get("time_major", False), save_states),
    )


def random_weights(case: CfcCase) -> tuple[Tensor, Tensor]:
    """Draw what the outputs are weighted with where a scalar is needed."""
    output, hn = run_reference(case)
    return torch.randn_like(output), torch.randn_like(hn)


def check_against_reference(case: CfcCase, tolerance: float = 1e-10) -> None:
    """Compare outputs and every gradient with the reference, in float64."""
    weights = random_weights(case)
    actual = with_gradients(run_operator, case, weights)
    assert_all_close(actual, with_gradients(run_reference, case, weights), tolerance)
    for layer, mask in enumerate(case.masks):
        for name in ("ff1",) if case.options["mode"] == "pure" else ("ff1", "ff2"):
            gradient = actual[f"grad of layer_{layer}.{name}.weight"]
            assert (gradient[mask == 0] == 0).all(), f"{layer} {name}: gradient off the mask"


def cfc_twins(
    inputs: int, units: Callable[[], Any] | int, kind: str = "CfC", **options: Any
) -> tuple[nn.Module, nn.Module]:
    """Make a layer (or "CfCCell", "WiredCfCCell") of ncps and its twin in float64."""

    def make(package: Any) -> nn.Module:
        size = units() if callable(units) else units
        return getattr(package, kind)(inputs, size, **options).double()

    theirs, ours = make(ncps.torch), make(fastltc)
    with torch.no_grad():
        for parameter in ours.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return theirs, ours
