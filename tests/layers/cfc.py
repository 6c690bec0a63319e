"""What the tests have to know of the CfC cells."""

# ruff: noqa: RUF012  # Case declares the attributes.

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor
from typing_extensions import Self

from fastltc import reference
from fastltc.ops import CFC_ACTIVATIONS, CFC_MODES, cfc
from layers.case import Case, poisoned, random_data, random_memory, random_resets


class CfcCase(Case):
    """A CfC layer; ``masks`` has one for each cell, or none."""

    operator = "cfc"
    cell = "CfC"
    function = staticmethod(cfc)
    kinds = {
        "one cell": {"h0": False, "timespans": None, "density": None, "layer_sizes": (5,)},
        "wired": {"lengths": True, "timespans": "BTN", "time_major": True},
        "all neurons": {"output_size": 10, "lengths": True},
        "pure": {"mode": "pure", "timespans": None},
        "backbone": {
            "layer_sizes": (5,),
            "backbone_layers": 3,
            "dropout": 0.5,
            "mode": "no_gate",
        },
        "last step": {"return_sequences": False, "lengths": True},
        "mixed memory": {"memory": True, "lengths": True},
        "resets": {"resets": True, "lengths": True, "timespans": "BTN"},
        "resets, mixed memory": {"resets": True, "memory": True},
        "resets to zero": {"resets": True, "reset_to_zero": True, "lengths": True},
        "resets to zero, mixed memory": {"resets": True, "reset_to_zero": True, "memory": True},
        "empty batch": {"batch": 0},
        "empty sequence": {"time": 0},
        "float32": {"dtype": torch.float32, "batch": 20},
    }
    few = ("wired", "backbone", "resets")
    equations = {mode: {"mode": mode} for mode in CFC_MODES}
    layouts = {"wired": {}, "backbone": {"layer_sizes": (6,), "backbone_layers": 2}}
    calls = layouts
    sizes = [  # batch, time, inputs, layers
        (1, 1, 1, (1,)),
        (2, 1, 3, (2, 1)),
        (1, 7, 2, (7,)),
        (7, 2, 5, (17, 31, 3)),
        (29, 3, 1, (33,)),
        (33, 2, 33, (1, 4, 2)),
        (16, 4, 8, (8, 8)),
        (65, 1, 2, (11, 6, 2)),
        (3, 33, 4, (5, 1)),
        (2, 2, 3, (70, 9)),
        (2, 2, 3, (3, 2, 4, 1)),
    ]
    wide = {"layer_sizes": (17,)}
    tiny = {"layer_sizes": (2, 1), "units": 3, "dropout": 0.5}
    densities = (None, 0.0, 0.1, 1.0)
    some_parameter = "layer_0.ff1.bias"
    rounding = 1e-12
    thread_proof = ()
    sums_cancel = True

    @classmethod
    def random(
        cls,
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
        resets: bool = False,
        memory: bool = False,
        dtype: torch.dtype = torch.float64,
        poison: bool = True,
        **options: Any,
    ) -> Self:
        """Draw a layer and its data; with ``density=None`` or a backbone it has no masks.

        With a backbone there is one cell, of all neurons.
        """

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, dtype=torch.float64)

        parameters: dict[str, Tensor] = {}

        def linear(name: str, outputs: int, fan_in: int) -> None:
            parameters[f"{name}.weight"] = normal(outputs, fan_in) * (1.5 / fan_in**0.5)
            parameters[f"{name}.bias"] = normal(outputs) * 0.3

        masks: list[Tensor] = []
        neurons, fan_in = sum(layer_sizes), inputs
        if backbone_layers:
            layer_sizes, density, fan_in = (neurons,), None, inputs + neurons
        for layer in range(backbone_layers):
            linear(f"backbone.{layer}", units, fan_in)
            fan_in = units
        for layer, size in enumerate(layer_sizes):
            own = fan_in if backbone_layers else fan_in + size
            if density is not None:
                masks.append((torch.rand(size, own) < density).double())
            linear(f"layer_{layer}.ff1", size, own)
            if mode == "pure":
                parameters[f"layer_{layer}.w_tau"] = normal(1, size) * 0.5
                parameters[f"layer_{layer}.A"] = normal(1, size)
            else:
                for head in ("ff2", "time_a", "time_b"):
                    linear(f"layer_{layer}.{head}", size, own)
            fan_in = size
        data, steps = random_data((batch, time, inputs, neurons), h0, timespans, lengths, memory)
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
        case = cls(data, parameters, steps, masks, options, remembered, factors)
        case.resets = random_resets(batch, time, resets)
        return (poisoned(case) if poison else case).to(dtype)

    @classmethod
    def strategy(cls, draw: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        backbone_layers = draw(st.integers(0, 3))
        layers = 1 if backbone_layers else draw(st.integers(1, 4))
        sizes = draw(st.lists(st.integers(1, 12), min_size=layers, max_size=layers))
        return (sizes,), {
            "mode": draw(st.sampled_from(CFC_MODES)),
            "activation": draw(st.sampled_from(CFC_ACTIVATIONS)),
            "backbone_layers": backbone_layers,
            "units": draw(st.integers(1, 40)),
            "dropout": draw(st.sampled_from([0.0, 0.5])),
            "density": draw(st.sampled_from([None, 0.0, 0.2, 0.7, 1.0])),
        }

    @property
    def neurons(self) -> int:
        return sum(self.options["layer_sizes"])

    def masked(self) -> dict[str, Tensor]:
        heads = ("ff1",) if self.options["mode"] == "pure" else ("ff1", "ff2")
        return {
            f"layer_{layer}.{head}.weight": mask
            for layer, mask in enumerate(self.masks)
            for head in heads
        }

    def keywords(self) -> dict[str, Any]:
        return {**super().keywords(), "dropout": self.dropout}

    def output_of(self, state: Tensor) -> Tensor:
        return state[:, -2:]

    def reference(self) -> tuple[Tensor, Tensor]:
        options = {k: v for k, v in self.keywords().items() if k != "time_major"}
        return reference.cfc(
            **self.data,
            lengths=self.lengths,
            parameters=list(self.parameters.values()),
            masks=self.masks,
            **options,
        )

    def arguments(self) -> tuple[Any, ...]:
        return *self.data.values(), self.lengths, list(self.parameters.values()), self.masks

    def raw(self) -> dict[str, Any]:
        return {
            "masks": self.masks,
            "dropout": self.dropout,
            "mode": CFC_MODES.index(self.options["mode"]),
            "activation": CFC_ACTIVATIONS.index(self.options["activation"]),
            "output_size": self.options.get("output_size", (1, *self.options["layer_sizes"])[-1]),
        }
