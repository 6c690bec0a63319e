"""What the tests have to know of the LTC cell."""

# ruff: noqa: RUF012  # Case declares the attributes.

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor
from typing_extensions import Self

from fastltc import reference
from fastltc.nn import synapse_list
from fastltc.ops import LTC_PARAMETERS, ltc
from layers.case import Case, poisoned, random_data, random_memory, random_resets

RECURRENT, SENSORY, MAPS = LTC_PARAMETERS[3:7], LTC_PARAMETERS[7:11], LTC_PARAMETERS[11:]


class LtcCase(Case):
    """An LTC layer; ``masks`` are those of the recurrent and of the sensory synapses."""

    operator = "ltc"
    cell = "LTC"
    function = staticmethod(ltc)
    kinds = {
        "plain": {"h0": False, "timespans": None, "maps": ""},
        "everything": {"lengths": True, "timespans": "BTN", "time_major": True},
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
    few = ("everything", "resets")
    equations = {"softplus": {"softplus": True}, "no softplus": {"softplus": False}}
    layouts = {"": {}}
    calls = {f"maps={maps}": {"maps": maps} for maps in ("", "i", "iIoO", "o", "IO")}
    sizes = [  # batch, time, inputs, neurons, motors
        (1, 1, 1, 1, 1),
        (2, 1, 3, 2, 1),
        (1, 7, 2, 7, 7),
        (7, 2, 5, 31, 3),
        (29, 3, 1, 33, 33),
        (33, 2, 33, 7, 2),
        (16, 4, 8, 16, 4),
        (65, 1, 2, 19, 2),
        (3, 33, 4, 5, 1),
        (2, 2, 3, 70, 9),
    ]
    wide = {"neurons": 33, "motors": 3}
    tiny = {"neurons": 4, "density": 0.6, "ode_unfolds": 2}
    densities = (0.0, 0.1, 1.0)
    some_parameter = "mu"
    rounding = 1e-13
    thread_proof = ("output", "hn", "grad of x", "grad of h0", "grad of timespans")
    sums_cancel = False

    @classmethod
    def random(
        cls,
        batch: int = 3,
        time: int = 5,
        inputs: int = 4,
        neurons: int = 7,
        motors: int = 2,
        *,
        density: float = 0.5,
        h0: bool = True,
        timespans: str | None = "BT",
        lengths: bool = False,
        resets: bool = False,
        memory: bool = False,
        maps: str = "iIoO",
        dtype: torch.dtype = torch.float64,
        poison: bool = True,
        **options: Any,
    ) -> Self:
        """Draw a layer and its data.

        ``maps`` holds a letter for each of input_w, input_b, output_w and output_b that is there.
        """

        def uniform(low: float, high: float, *shape: int) -> Tensor:
            return torch.rand(*shape, dtype=torch.float64) * (high - low) + low

        softplus = options.setdefault("softplus", True)
        low = -2.0 if softplus else 0.05
        recurrent, sensory = (neurons, neurons), (inputs, neurons)
        masks = [(torch.rand(shape) < density).double() for shape in (recurrent, sensory)]
        parameters: dict[str, Tensor | None] = {
            "gleak": uniform(low, 1.5, neurons),
            "vleak": uniform(-0.5, 0.5, neurons),
            "cm": uniform(max(low, -1.0), 1.0, neurons),
        }
        for prefix, shape in (("", recurrent), ("sensory_", sensory)):
            parameters[f"{prefix}sigma"] = uniform(-4, 8, *shape)
            parameters[f"{prefix}mu"] = uniform(-0.5, 0.8, *shape)
            parameters[f"{prefix}w"] = uniform(low, 1.5, *shape)
            parameters[f"{prefix}erev"] = uniform(-1, 1, *shape)
        for name, letter, size in (
            ("input_w", "i", inputs),
            ("input_b", "I", inputs),
            ("output_w", "o", motors),
            ("output_b", "O", motors),
        ):
            limits = (0.5, 1.5) if name.endswith("w") else (-0.5, 0.5)
            parameters[name] = uniform(*limits, size) if letter in maps else None
        data, steps = random_data((batch, time, inputs, neurons), h0, timespans, lengths, memory)
        options.setdefault("ode_unfolds", 6)
        options.setdefault("epsilon", 1e-8)
        options.setdefault("return_sequences", True)
        options["output_size"] = motors
        remembered = random_memory(inputs, neurons) if memory else {}
        case = cls(data, parameters, steps, masks, options, remembered)
        case.resets = random_resets(batch, time, resets)
        return (poisoned(case) if poison else case).to(dtype)

    @classmethod
    def strategy(cls, draw: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        neurons = draw(st.integers(1, 12))
        return (neurons, draw(st.integers(1, neurons))), {
            "density": draw(st.sampled_from([0.0, 0.2, 0.7, 1.0])),
            "softplus": draw(st.booleans()),
            "ode_unfolds": draw(st.integers(1, 7)),
            "maps": "".join(draw(st.sets(st.sampled_from("iIoO")))),
        }

    @property
    def neurons(self) -> int:
        return self.masks[0].shape[0]

    def masked(self) -> dict[str, Tensor]:
        return dict.fromkeys(RECURRENT, self.masks[0]) | dict.fromkeys(SENSORY, self.masks[1])

    def output_of(self, state: Tensor) -> Tensor:
        return state[:, :2] * self.parameters["output_w"] + self.parameters["output_b"]

    def reference(self) -> tuple[Tensor, Tensor]:
        # What has no influence on the equation.
        passed = "time_major", "sigmoid_precision"
        options = {k: v for k, v in self.keywords().items() if k not in passed}
        mask, sensory_mask = self.masks
        return reference.ltc(
            **self.data,
            lengths=self.lengths,
            **self.parameters,
            mask=mask,
            sensory_mask=sensory_mask,
            **options,
        )

    def arguments(self) -> tuple[Any, ...]:
        lists = (synapse_list(mask).to(self.data["x"].device) for mask in self.masks)
        return (*self.data.values(), self.lengths, tuple(self.parameters.values()), *lists)

    def raw(self) -> dict[str, Any]:
        *_, synapses, sensory_synapses = self.arguments()
        maps = [self.parameters[name] is not None for name in MAPS]
        return {
            "parameters": [t for t in self.parameters.values() if t is not None],
            "maps": sum(there << bit for bit, there in enumerate(maps)),
            "synapses": synapses,
            "sensory_synapses": sensory_synapses,
            "medium_sigmoid": self.options.get("sigmoid_precision") == "medium",
        }
