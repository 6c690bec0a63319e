"""Random LTC layers, and ways to run one by the operator and by the reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from fastltc import reference
from fastltc.nn import synapse_list
from fastltc.ops import LTC_PARAMETERS, ltc

GRADIENTS = ("x", "h0", "timespans", *LTC_PARAMETERS)


@dataclass
class Case:
    """Arguments of a layer; masked-out parameters are NaN."""

    data: dict[str, Tensor | None]
    parameters: dict[str, Tensor | None]
    lengths: Tensor | None
    mask: Tensor
    sensory_mask: Tensor
    options: dict[str, Any] = field(default_factory=dict)
    memory: dict[str, Tensor] = field(default_factory=dict)

    @property
    def leaves(self) -> dict[str, Tensor | None]:
        return {**self.data, **self.parameters, **self.memory}

    def with_(self, **changes: Any) -> Case:
        """Return a copy with other tensors, masks, lengths or options."""
        data, parameters, options = dict(self.data), dict(self.parameters), dict(self.options)
        rest = {}
        for name, value in changes.items():
            for part in (data, parameters):
                if name in part:
                    part[name] = value
                    break
            else:
                if name in ("mask", "sensory_mask", "lengths"):
                    rest[name] = value
                else:
                    options[name] = value
        return replace(self, data=data, parameters=parameters, options=options, **rest)

    def to(self, dtype: torch.dtype) -> Case:
        def cast(tensors: dict[str, Tensor | None]) -> dict[str, Tensor | None]:
            return {k: None if t is None else t.detach().to(dtype) for k, t in tensors.items()}

        return replace(
            self,
            data=cast(self.data),
            parameters=cast(self.parameters),
            memory=cast(self.memory),
        )

    def requiring_grad(self) -> Case:
        def leaf(tensors: dict[str, Tensor | None]) -> dict[str, Tensor | None]:
            return {
                k: None if t is None else t.detach().requires_grad_() for k, t in tensors.items()
            }

        return replace(
            self,
            data=leaf(self.data),
            parameters=leaf(self.parameters),
            memory=leaf(self.memory),
        )


def random_memory(inputs: int, neurons: int) -> dict[str, Tensor]:
    """Draw the weights of a memory cell."""
    return {
        "memory.weight": torch.randn(4 * neurons, inputs, dtype=torch.float64) * 0.5,
        "memory.bias": torch.randn(4 * neurons, dtype=torch.float64) * 0.5,
        "memory.recurrent_weight": torch.randn(4 * neurons, neurons, dtype=torch.float64) * 0.5,
    }


def random_case(
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
    memory: bool = False,
    maps: str = "iIoO",
    dtype: torch.dtype = torch.float64,
    poison: bool = True,
    **options: Any,
) -> Case:
    """Draw a layer and its data.

    ``maps`` holds a letter for each of input_w, input_b, output_w and output_b that is there.
    """

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(*shape, dtype=torch.float64) * (high - low) + low

    softplus = options.setdefault("softplus", True)
    low = -2.0 if softplus else 0.05
    mask = (torch.rand(neurons, neurons) < density).double()
    sensory_mask = (torch.rand(inputs, neurons) < density).double()
    recurrent, sensory = (neurons, neurons), (inputs, neurons)
    parameters: dict[str, Tensor | None] = {
        "gleak": uniform(low, 1.5, neurons),
        "vleak": uniform(-0.5, 0.5, neurons),
        "cm": uniform(max(low, -1.0), 1.0, neurons),
        "sigma": uniform(-4, 8, *recurrent),
        "mu": uniform(-0.5, 0.8, *recurrent),
        "w": uniform(low, 1.5, *recurrent),
        "erev": uniform(-1, 1, *recurrent),
        "sensory_sigma": uniform(-4, 8, *sensory),
        "sensory_mu": uniform(-0.5, 0.8, *sensory),
        "sensory_w": uniform(low, 1.5, *sensory),
        "sensory_erev": uniform(-1, 1, *sensory),
        "input_w": uniform(0.5, 1.5, inputs) if "i" in maps else None,
        "input_b": uniform(-0.5, 0.5, inputs) if "I" in maps else None,
        "output_w": uniform(0.5, 1.5, motors) if "o" in maps else None,
        "output_b": uniform(-0.5, 0.5, motors) if "O" in maps else None,
    }
    if poison:
        for name in LTC_PARAMETERS[3:11]:
            exists = mask if name in LTC_PARAMETERS[3:7] else sensory_mask
            parameters[name] = torch.where(exists == 1, parameters[name], torch.nan)
    shape = {"BT": (batch, time), "BTN": (batch, time, neurons), None: None}[timespans]
    data = {
        "x": torch.randn(batch, time, inputs, dtype=torch.float64),
        "h0": uniform(-0.5, 0.8, batch, neurons * (1 + memory)) if h0 else None,
        "timespans": uniform(0, 2, *shape) if shape is not None else None,
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
    options.setdefault("ode_unfolds", 6)
    options.setdefault("epsilon", 1e-8)
    options.setdefault("return_sequences", True)
    options["output_size"] = motors
    remembered = random_memory(inputs, neurons) if memory else {}
    return Case(data, parameters, steps, mask, sensory_mask, options, remembered).to(dtype)


def run_reference(case: Case) -> tuple[Tensor, Tensor]:
    options = {k: v for k, v in case.options.items() if k != "time_major"}
    return reference.ltc(
        **case.data,
        lengths=case.lengths,
        **case.parameters,
        mask=case.mask,
        sensory_mask=case.sensory_mask,
        memory=list(case.memory.values()) or None,
        **options,
    )


def operator_arguments(case: Case) -> tuple[Any, ...]:
    """Return the arguments of fastltc.ops.ltc up to the synapse lists."""
    return (
        *case.data.values(),
        case.lengths,
        tuple(case.parameters.values()),
        synapse_list(case.mask),
        synapse_list(case.sensory_mask),
    )


def raw_arguments(case: Case, save_states: bool) -> tuple[Any, ...]:
    """Return the arguments of torch.ops.fastltc.ltc_forward."""
    *data, parameters, synapses, sensory_synapses = operator_arguments(case)
    names = ("output_size", "ode_unfolds", "epsilon", "softplus", "return_sequences")
    options = [case.options[name] for name in names]
    time_major = case.options.get("time_major", False)
    maps = sum(1 << m for m, tensor in enumerate(parameters[11:]) if tensor is not None)
    present = [tensor for tensor in parameters if tensor is not None]
    lists = synapses, sensory_synapses
    learned = present, list(case.memory.values())
    return (*data, *learned, *lists, maps, *options, time_major, save_states)


def change_tensors(arguments: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Change all tensors among the arguments of an operator, also those in lists."""

    def each(value: Any) -> Any:
        if isinstance(value, list):
            return [each(v) for v in value]
        return change(value) if isinstance(value, Tensor) else value

    return tuple(each(value) for value in arguments)


def leaves_of(arguments: Any) -> Any:
    """Detach the floating-point tensors among arguments, and have them require gradients."""
    return change_tensors(
        arguments, lambda t: t.detach().requires_grad_() if t.is_floating_point() else t
    )


def run_operator(case: Case) -> tuple[Tensor, Tensor]:
    memory = list(case.memory.values()) or None
    return ltc(*operator_arguments(case), **case.options, memory=memory)


def with_gradients(run: Any, case: Case, weights: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """Run a layer; return outputs and the gradient, by name, of their weighted sum."""
    case = case.requiring_grad()
    output, hn = run(case)
    results = {"output": output.detach(), "hn": hn.detach()}
    leaves = {name: leaf for name, leaf in case.leaves.items() if leaf is not None}
    # Of an empty sequence the reference returns constants.
    used = [(y, g) for y, g in zip((output, hn), weights, strict=True) if y.requires_grad]
    grads = torch.autograd.grad(
        [y for y, _ in used] or [leaves["x"].sum() * 0],
        list(leaves.values()),
        [g for _, g in used] or None,
        allow_unused=True,
        materialize_grads=True,
    )
    return {**results, **{f"grad of {n}": g for n, g in zip(leaves, grads, strict=True)}}


def random_weights(case: Case) -> tuple[Tensor, Tensor]:
    """Draw what the outputs are weighted with where a scalar is needed."""
    output, hn = run_reference(case)
    return torch.randn_like(output), torch.randn_like(hn)


def assert_all_close(
    actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-10
) -> None:
    """Compare by name, relative to the largest entry of each (at least 1)."""
    assert actual.keys() == expected.keys()
    for name, wanted in expected.items():
        got = actual[name]
        assert got.shape == wanted.shape, f"{name}: shape {got.shape} instead of {wanted.shape}"
        assert got.dtype == wanted.dtype, f"{name}: {got.dtype} instead of {wanted.dtype}"
        assert torch.isfinite(got).all(), f"{name}: not finite"
        if wanted.numel():
            scale = max(1.0, wanted.abs().max().item())
            worst = (got - wanted).abs().max().item()
            assert worst <= tolerance * scale, f"{name}: differs by {worst:.3g} of {scale:.3g}"


def check_against_reference(case: Case) -> None:
    """Compare outputs and every gradient with the reference, in float64."""
    weights = random_weights(case)
    actual = with_gradients(run_operator, case, weights)
    expected = with_gradients(run_reference, case, weights)
    assert_all_close(actual, expected)
    for name, exists in (("", case.mask), ("sensory_", case.sensory_mask)):
        for parameter in ("sigma", "mu", "w", "erev"):
            gradient = actual[f"grad of {name}{parameter}"]
            assert (gradient[exists == 0] == 0).all(), f"{name}{parameter}: gradient off the mask"
