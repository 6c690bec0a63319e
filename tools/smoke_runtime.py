"""Smoke test of fastltc.runtime where no torch is installed: run by tools/check_packaging.py.

With an argument, it leaves its model file there.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastltc import runtime

Array = npt.NDArray[np.float32]

INPUTS, NEURONS, OUTPUTS = 3, 5, 2


def make_model(random: np.random.Generator) -> runtime.Model:
    """Return an LTC layer with a linear layer behind it."""

    def draw(low: float, high: float, *shape: int) -> Array:
        return random.uniform(low, high, shape).astype(np.float32)

    tensors: dict[str, Array] = {"cm": draw(0.4, 0.6, NEURONS)}
    for prefix, rows in (("", NEURONS), ("sensory_", INPUTS)):
        tensors[f"{prefix}sigma"] = draw(3, 8, rows, NEURONS)
        tensors[f"{prefix}mu"] = draw(0.3, 0.8, rows, NEURONS)
        tensors[f"{prefix}w"] = draw(0, 1, rows, NEURONS)
        tensors[f"{prefix}erev"] = draw(-1, 1, rows, NEURONS)
        mask = random.random((rows, NEURONS)) < 0.6
        tensors[f"{prefix}sparsity_mask"] = mask.astype(np.float32)
    tensors |= {"gleak": draw(0, 1, NEURONS), "vleak": draw(-0.2, 0.2, NEURONS)}
    layers: list[dict[str, Any]] = [
        {
            "type": "ltc",
            "input_size": INPUTS,
            "units": NEURONS,
            "output_size": OUTPUTS,
            "ode_unfolds": 6,
            "epsilon": 1e-8,
            "implicit_param_constraints": False,
            "input_mapping": None,
            "output_mapping": None,
            "mixed_memory": False,
        },
        {"type": "linear", "input_size": OUTPUTS, "output_size": 1, "bias": False},
    ]
    named = {f"layers.0.rnn_cell.{name}": tensor for name, tensor in tensors.items()}
    named["layers.1.weight"] = draw(-1, 1, 1, OUTPUTS)
    return runtime.Model(INPUTS, 1, layers, named)


def expected_outputs(model: runtime.Model, xs: Array, dt: float) -> npt.NDArray[np.float64]:
    """Return what the model gives for ``[T, I]``, in plain numpy and float64."""
    p = {
        name.removeprefix("layers.0.rnn_cell."): tensor.astype(np.float64)
        for name, tensor in model.tensors.items()
    }

    def synapses(prefix: str, values: npt.NDArray[Any]) -> tuple[Any, Any]:
        slope = p[f"{prefix}sigma"] * (values[:, None] - p[f"{prefix}mu"])
        conductance = p[f"{prefix}w"] * p[f"{prefix}sparsity_mask"] / (1 + np.exp(-slope))
        return (conductance * p[f"{prefix}erev"]).sum(0), conductance.sum(0)

    v, capacity = np.zeros(NEURONS), 6 * p["cm"]
    outputs = []
    for x in xs.astype(np.float64):
        sensory_current, sensory_conductance = synapses("sensory_", x)
        for _ in range(6):
            current, conductance = synapses("", v)
            current = current + sensory_current + p["gleak"] * p["vleak"]
            conductance = conductance + sensory_conductance + p["gleak"] + 1e-8
            v = (capacity * v + dt * current) / (capacity + dt * conductance)
        outputs.append(p["layers.1.weight"] @ v[:OUTPUTS])
    return np.stack(outputs)


def main() -> None:
    """Write a model file, stream through it, and raise where a result is wrong."""
    random = np.random.default_rng()
    model = make_model(random)
    xs = random.standard_normal((50, INPUTS)).astype(np.float32)
    expected = expected_outputs(model, xs, 0.1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(folder) / "model.safetensors"
        runtime.write_model(model, path)
        network = runtime.load(path)
    one, many = network.session(), network.session(streams=20)
    steps = np.stack([one.step(x, dt=0.1) for x in xs])
    np.testing.assert_allclose(steps, expected, rtol=0, atol=2e-6)
    runs = many.run(np.repeat(xs[:, None], 20, axis=1), timespans=0.1)
    np.testing.assert_allclose(runs, np.repeat(expected[:, None], 20, axis=1), rtol=0, atol=2e-6)
    if "torch" in sys.modules or importlib.util.find_spec("torch") is not None:
        raise RuntimeError("torch is installed here, which this test is to do without")


if __name__ == "__main__":
    main()
    print("smoke test of the runtime passed")
