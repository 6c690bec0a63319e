"""ONNX: a model as a Loop over time whose body is one time step of all layers.

The graph is written node by node: what it holds does not depend on how a version of torch traces a
module, batch and time are free, and the state goes in and out. (A Scan would do as well, but ends
onnxruntime 1.31 by a division by zero when batch or time is 0.) Synapses of an LTC are gathered by
neuron, padded to the largest number that leads to one, so that sparse wirings cost little.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._files import write_bytes
from ..runtime.model import RECURRENT, Model, check_model, unit_in_words
from ..runtime.model_file import model_digest
from .errors import ExportError
from .prepared import memory_gates, neurons, positive, under

__all__ = ["OPSET", "build_onnx", "write_onnx"]

OPSET = 17
# The format of that time, so that runtimes of that time read the file.
_IR_VERSION = 8
# The unfolds are written one after the other.
_MAX_UNFOLDS = 64


def write_onnx(model: Model, path: str | os.PathLike[str]) -> None:
    """Write a model as an ONNX file.

    Raises:
        ExportError: (a ValueError) if the model cannot be written so.
        ImportError: if the package ``onnx`` is not installed.
        OSError: if the file cannot be written.
    """
    write_bytes(Path(path), build_onnx(model).SerializeToString())


def build_onnx(model: Model) -> Any:
    """Return a model as an ``onnx.ModelProto`` of opset 17.

    Inputs, all float32, with any batch B and any number of time steps T:
    ``x`` ``[B, T, I]``; ``timespans`` ``[B, T]``, the time since the last step in units of the
    model's ``time_unit`` seconds, not negative (ones where the training had none); ``state``
    ``[B, S]``, zeros at the start of a sequence. Outputs: ``output`` ``[B, T, M]`` and
    ``next_state`` ``[B, S]``. The state is that of :class:`fastltc.runtime.Session`. ONNX cannot
    raise errors: negative and NaN time steps give numbers without meaning. The file's metadata has
    ``fastltc.layers``, ``fastltc.sha256``, ``fastltc.time_unit`` and, where the model has names,
    ``fastltc.input_names`` and ``fastltc.output_names`` (JSON lists).

    Args:
        model: see :func:`fastltc.exporting.describe`.

    Raises:
        ExportError: (a ValueError) if a layer has more than 64 unfolds.
        ValueError: if the model is not valid.
        ImportError: if the package ``onnx`` is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise ImportError(
            "ONNX files need the package onnx: pip install 'fastltc[onnx]'"
        ) from error
    from .. import __version__

    check_model(model)
    body = _Body(model)
    tensor = onnx.helper.make_tensor_value_info
    single = onnx.TensorProto.FLOAT
    inputs, outputs, size = model.input_size, model.output_size, model.state_size
    unit = unit_in_words(model.time_unit)
    node = onnx.helper.make_node
    step = onnx.helper.make_graph(
        [
            node("Gather", ["x", "t"], ["x_t"], axis=1),
            node("Gather", ["timespans", "t"], ["timespan_t"], axis=1),
            *body.nodes,
            node("Identity", ["going"], ["going_on"]),
        ],
        "step",
        [
            tensor("t", onnx.TensorProto.INT64, []),
            tensor("going", onnx.TensorProto.BOOL, []),
            tensor("state_before", single, ["batch", size]),
        ],
        [
            tensor("going_on", onnx.TensorProto.BOOL, []),
            tensor(body.state, single, ["batch", size]),
            tensor(body.output, single, ["batch", outputs]),
        ],
    )
    over_time = [
        node("Shape", ["timespans"], ["steps"], start=1, end=2),
        node("Loop", ["steps", "", "state"], ["next_state", "outputs"], name="time", body=step),
        node("Transpose", ["outputs"], ["output"], perm=[1, 0, 2]),
    ]
    graph = onnx.helper.make_graph(
        over_time,
        "fastltc",
        [
            tensor("x", single, ["batch", "time", inputs]),
            tensor("timespans", single, ["batch", "time"], doc_string=f"in {unit}"),
            tensor("state", single, ["batch", size]),
        ],
        [
            tensor("output", single, ["batch", "time", outputs]),
            tensor("next_state", single, ["batch", size]),
        ],
        initializer=[onnx.numpy_helper.from_array(a, name) for name, a in body.constants.items()],
    )
    made = onnx.helper.make_model(
        graph,
        producer_name="fastltc",
        producer_version=str(__version__),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=_IR_VERSION,
    )
    facts = {
        "fastltc.layers": json.dumps(model.layers),
        "fastltc.sha256": model_digest(model),
        "fastltc.time_unit": str(float(model.time_unit)),
    }
    for key, names in (("input", model.input_names), ("output", model.output_names)):
        if names:
            facts[f"fastltc.{key}_names"] = json.dumps(names)
    onnx.helper.set_model_props(made, facts)
    onnx.checker.check_model(made, full_check=True)
    return made


class _Body:
    """The nodes of one time step, and the constants that they read from the graph around them."""

    def __init__(self, model: Model) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}
        self._count = 0
        self._prefix = ""
        dt = self.add("Unsqueeze", "timespan_t", self.integers([1]))
        sizes = [
            layer["units"]
            for layer in model.layers
            if layer["type"] in RECURRENT
            for _ in range(2 if layer["mixed_memory"] else 1)
        ]
        states = self.split("state_before", sizes)
        after: list[str] = []
        signal = "x_t"
        for index, layer in enumerate(model.layers):
            self._prefix = f"layer{index}_"
            parameters = model.parameters(index)
            kind = layer["type"]
            if kind == "activation":
                signal = self.activation(layer["function"], signal)
            elif kind == "linear":
                signal = self.dense(signal, parameters["weight"], parameters.get("bias"))
            else:
                h = states[len(after)]
                c = None
                if layer["mixed_memory"]:
                    h, c = self.memory(parameters, signal, h, states[len(after) + 1])
                run = {"ltc": self.ltc, "wired_cfc": self.wired_cfc, "cfc": self.cfc}[kind]
                signal, h = run(layer, parameters, signal, h, dt)
                after += [h] if c is None else [h, c]
        self.state = self.add("Identity", after[0]) if len(after) == 1 else self.concat(after)
        # A graph may not give out one value twice, nor one of its inputs.
        self.output = self.add("Identity", signal)

    def add(self, operator: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node; return the name of its output, or a list of them."""
        import onnx

        names = []
        for _ in range(outputs):
            self._count += 1
            names.append(f"{self._prefix}{operator.lower()}_{self._count}")
        self.nodes.append(onnx.helper.make_node(operator, inputs, names, **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, values: Any, name: str = "constant") -> str:
        """Add a float32 constant; return its name."""
        self._count += 1
        key = f"{self._prefix}{name}_{self._count}"
        with np.errstate(over="ignore"):
            made = np.array(values, dtype=np.float32, order="C")
        if not np.isfinite(made).all():
            raise ExportError(f"{name}: made of the parameters, is no float32")
        self.constants[key] = made
        return key

    def integers(self, values: Sequence[int]) -> str:
        """Add an int64 constant; return its name."""
        self._count += 1
        key = f"{self._prefix}integers_{self._count}"
        self.constants[key] = np.array(values, dtype=np.int64)
        return key

    def split(self, value: str, sizes: Sequence[int]) -> list[str]:
        if len(sizes) == 1:
            return [value]
        return self.add("Split", value, self.integers(sizes), outputs=len(sizes), axis=1)

    def concat(self, values: Sequence[str]) -> str:
        return self.add("Concat", *values, axis=1)

    def dense(self, value: str, weight: np.ndarray, bias: np.ndarray | None) -> str:
        offsets = np.zeros(len(weight)) if bias is None else bias
        inputs = value, self.constant(weight, "weight"), self.constant(offsets, "bias")
        return self.add("Gemm", *inputs, transB=1)

    def activation(self, function: str, x: str) -> str:
        if function == "silu":
            return self.add("Mul", x, self.add("Sigmoid", x))
        if function == "gelu":
            scaled = self.add("Mul", x, self.constant(np.sqrt(0.5)))
            grown = self.add("Add", self.add("Erf", scaled), self.constant(1))
            return self.add("Mul", self.add("Mul", x, self.constant(0.5)), grown)
        if function == "lecun_tanh":
            inner = self.add("Tanh", self.add("Mul", x, self.constant(0.666)))
            return self.add("Mul", inner, self.constant(1.7159))
        if function == "softmax":
            return self.add("Softmax", x, axis=-1)
        simple = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid", "softplus": "Softplus"}
        return self.add(simple[function], x)

    def memory(self, parameters: dict[str, np.ndarray], x: str, h: str, c: str) -> tuple[str, str]:
        weight, bias = memory_gates(parameters)
        gates = self.dense(self.concat([x, h]), weight, bias)
        activation, write, keep, read = self.split(gates, [len(bias) // 4] * 4)
        kept = self.add("Mul", c, self.add("Sigmoid", keep))
        added = self.add("Mul", self.add("Tanh", activation), self.add("Sigmoid", write))
        c = self.add("Add", kept, added)
        return self.add("Mul", self.add("Tanh", c), self.add("Sigmoid", read)), c

    def ltc(
        self, layer: dict[str, Any], p: dict[str, np.ndarray], x: str, v: str, dt: str
    ) -> tuple[str, str]:
        p = under(p, "rnn_cell.")
        if layer["ode_unfolds"] > _MAX_UNFOLDS:
            raise ExportError(
                f"ode_unfolds: expected at most {_MAX_UNFOLDS} for ONNX, got {layer['ode_unfolds']}"
            )

        capacitances, leaks, leak_currents = neurons(layer, p).T
        current = self.constant(leak_currents, "leak_current")
        conductance = self.constant(leaks, "leak")
        capacitance = self.constant(capacitances, "capacitance")
        if layer["input_mapping"] is not None:
            x = self.add("Mul", x, self.constant(p["input_w"], "input_w"))
        if layer["input_mapping"] == "affine":
            x = self.add("Add", x, self.constant(p["input_b"], "input_b"))
        sensory = self.synapses(layer, p, "sensory_")
        if sensory is not None:
            current, conductance = sensory(x, current, conductance)
        recurrent = self.synapses(layer, p, "")
        held, moves = v, self.add("Greater", dt, self.constant(0))
        # Past these the potentials are at their limits to rounding, and products with dt overflow.
        dt = self.add("Clip", dt, self.constant(1e-29), self.constant(1e24))
        for _ in range(layer["ode_unfolds"]):
            flow, total = current, conductance
            if recurrent is not None:
                flow, total = recurrent(v, current, conductance)
            above = self.add("Add", self.add("Mul", capacitance, v), self.add("Mul", dt, flow))
            below = self.add("Add", capacitance, self.add("Mul", dt, total))
            v = self.add("Div", above, below)
        # A time step of 0 holds the potentials, also where cm is 0.
        y = v = self.add("Where", moves, v, held)
        motors = layer["output_size"]
        if motors < layer["units"]:
            y = self.split(v, [motors, layer["units"] - motors])[0]
        if layer["output_mapping"] is not None:
            y = self.add("Mul", y, self.constant(p["output_w"], "output_w"))
        if layer["output_mapping"] == "affine":
            y = self.add("Add", y, self.constant(p["output_b"], "output_b"))
        return y, v

    def synapses(self, layer: dict[str, Any], p: dict[str, np.ndarray], prefix: str) -> Any:
        """Add the constants of the synapses; return what adds their sums to currents."""
        mask = p[f"{prefix}sparsity_mask"]
        neurons = mask.shape[1]
        degree = int(mask.sum(0).max())
        if degree == 0:
            return None
        sources = np.zeros((neurons, degree), dtype=np.int64)
        exists = np.zeros((neurons, degree))
        for neuron in range(neurons):
            found = np.flatnonzero(mask[:, neuron])
            sources[neuron, : len(found)] = found
            exists[neuron, : len(found)] = 1

        def gathered(values: np.ndarray) -> np.ndarray:
            return np.where(exists == 1, np.take_along_axis(values.T, sources, 1), 0)

        weight = gathered(positive(layer, p[f"{prefix}w"]))
        pick = self.integers(list(sources.reshape(-1)))
        shape = self.integers([0, neurons, degree])
        slope = self.constant(gathered(p[f"{prefix}sigma"]), "slope")
        midpoint = self.constant(gathered(p[f"{prefix}mu"]), "midpoint")
        conductances = self.constant(weight, "conductance")
        currents = self.constant(weight * gathered(p[f"{prefix}erev"]), "current")
        last = self.integers([2])

        def run(value: str, current: str, conductance: str) -> tuple[str, str]:
            taken = self.add("Reshape", self.add("Gather", value, pick, axis=1), shape)
            argument = self.add("Mul", slope, self.add("Sub", taken, midpoint))
            opened = self.add("Sigmoid", argument)
            sums = [
                self.add("ReduceSum", self.add("Mul", opened, factor), last, keepdims=0)
                for factor in (currents, conductances)
            ]
            return self.add("Add", current, sums[0]), self.add("Add", conductance, sums[1])

        return run

    def wired_cfc(
        self, layer: dict[str, Any], p: dict[str, np.ndarray], x: str, h: str, dt: str
    ) -> tuple[str, str]:
        after = []
        for index, own in enumerate(self.split(h, layer["cells"])):
            cell = under(p, f"rnn_cell.layer_{index}.")
            x = self.heads(layer["mode"], cell, self.concat([x, own]), dt)
            after.append(x)
        return self.project(p, x), (after[0] if len(after) == 1 else self.concat(after))

    def cfc(
        self, layer: dict[str, Any], p: dict[str, np.ndarray], x: str, h: str, dt: str
    ) -> tuple[str, str]:
        cell = under(p, "rnn_cell.")
        z = self.concat([x, h])
        for index in range(layer["backbone_layers"]):
            key = f"backbone.{2 * index}"
            z = self.dense(z, cell[f"{key}.weight"], cell[f"{key}.bias"])
            z = self.activation(layer["activation"], z)
        h = self.heads(layer["mode"], cell, z, dt)
        return self.project(p, h), h

    def project(self, p: dict[str, np.ndarray], y: str) -> str:
        return self.dense(y, p["fc.weight"], p["fc.bias"]) if "fc.weight" in p else y

    def heads(self, mode: str, p: dict[str, np.ndarray], z: str, dt: str) -> str:
        """Add one CfC cell on its input and state, put together; return its next state."""
        mask = p.get("sparsity_mask", np.float32(1))
        if mode == "pure":
            f = self.dense(z, p["ff1.weight"] * mask, p["ff1.bias"])
            rate = self.add("Add", self.constant(np.abs(p["w_tau"])), self.add("Abs", f))
            decay = self.add("Exp", self.add("Neg", self.add("Mul", dt, rate)))
            a = self.constant(p["A"], "A")
            return self.add("Sub", a, self.add("Mul", self.add("Mul", a, decay), f))
        f1 = self.add("Tanh", self.dense(z, p["ff1.weight"] * mask, p["ff1.bias"]))
        f2 = self.add("Tanh", self.dense(z, p["ff2.weight"] * mask, p["ff2.bias"]))
        a = self.dense(z, p["time_a.weight"], p["time_a.bias"])
        b = self.dense(z, p["time_b.weight"], p["time_b.bias"])
        r = self.add("Sigmoid", self.add("Add", self.add("Mul", a, dt), b))
        gained = self.add("Mul", r, f2)
        if mode == "no_gate":
            return self.add("Add", f1, gained)
        kept = self.add("Mul", f1, self.add("Sub", self.constant(1), r))
        return self.add("Add", kept, gained)
