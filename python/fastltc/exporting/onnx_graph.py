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
from .onnx_cells import Cells, Synapses
from .prepared import memory_gates, neurons, synapses, under

OPSET = 17
# The format of that time, so that runtimes of that time read the file.
_IR_VERSION = 8


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
    inputs, outputs, size = model.input_size, model.output_size, model.state_size
    unit = unit_in_words(model.time_unit)
    node = onnx.helper.make_node

    def tensor(name: str, *shape: Any, kind: str = "FLOAT", **more: Any) -> Any:
        return onnx.helper.make_tensor_value_info(
            name, onnx.TensorProto.DataType.Value(kind), shape, **more
        )

    step = onnx.helper.make_graph(
        [
            node("Gather", ["x", "t"], ["x_t"], axis=1),
            node("Gather", ["timespans", "t"], ["timespan_t"], axis=1),
            *body.nodes,
            node("Identity", ["going"], ["going_on"]),
        ],
        "step",
        [
            tensor("t", kind="INT64"),
            tensor("going", kind="BOOL"),
            tensor("state_before", "batch", size),
        ],
        [
            tensor("going_on", kind="BOOL"),
            tensor(body.state, "batch", size),
            tensor(body.output, "batch", outputs),
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
            tensor("x", "batch", "time", inputs),
            tensor("timespans", "batch", "time", doc_string=f"in {unit}"),
            tensor("state", "batch", size),
        ],
        [tensor("output", "batch", "time", outputs), tensor("next_state", "batch", size)],
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


class _Body(Cells):
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
                    h, c = self.remember(parameters, signal, h, states[len(after) + 1])
                signal, h = getattr(self, f"run_{kind}")(layer, parameters, signal, h, dt)
                after += [h] if c is None else [h, c]
        self.state = self.add("Identity", after[0]) if len(after) == 1 else self.concat(after)
        # A graph may not give out one value twice, nor one of its inputs.
        self.output = self.add("Identity", signal)

    def _new_name(self, what: str) -> str:
        self._count += 1
        return f"{self._prefix}{what}_{self._count}"

    def add(self, operator: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node; return the name of its output, or a list of them."""
        import onnx

        names = [self._new_name(operator.lower()) for _ in range(outputs)]
        self.nodes.append(onnx.helper.make_node(operator, inputs, names, **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, values: Any, name: str = "constant") -> str:
        """Add a float32 constant; return its name."""
        key = self._new_name(name)
        with np.errstate(over="ignore"):
            made = np.array(values, dtype=np.float32, order="C")
        if not np.isfinite(made).all():
            raise ExportError(f"{name}: made of the parameters, is no float32")
        self.constants[key] = made
        return key

    def integers(self, values: Sequence[int]) -> str:
        """Add an int64 constant; return its name."""
        key = self._new_name("integers")
        self.constants[key] = np.array(values, dtype=np.int64)
        return key

    def dense(self, value: str, weight: np.ndarray, bias: np.ndarray | None) -> str:
        offsets = np.zeros(len(weight)) if bias is None else bias
        return self.product(value, self.constant(weight, "weight"), self.constant(offsets, "bias"))

    def remember(
        self, parameters: dict[str, np.ndarray], x: str, h: str, c: str
    ) -> tuple[str, str]:
        weight, bias = memory_gates(parameters)
        gates = self.dense(self.concat([x, h]), weight, bias)
        return self.memory(gates, c, len(bias) // 4)

    def run_ltc(
        self, layer: dict[str, Any], p: dict[str, np.ndarray], x: str, v: str, dt: str
    ) -> tuple[str, str]:
        p = under(p, "rnn_cell.")
        capacitances, leaks, leak_currents = neurons(layer, p).T
        current = self.constant(leak_currents, "leak_current")
        conductance = self.constant(leaks, "leak")
        capacitance = self.constant(capacitances, "capacitance")
        x = self.bounded_input(self.mapped(p, "input", x))
        sensory = self.synapses(layer, p, "sensory_")
        current, conductance = self.through(sensory, x, current, conductance)
        recurrent = self.synapses(layer, p, "")
        unfolds = layer["ode_unfolds"]
        y = v = self.ltc(capacitance, current, conductance, recurrent, unfolds, v, dt)
        motors = layer["output_size"]
        if motors < layer["units"]:
            y = self.split(v, [motors, layer["units"] - motors])[0]
        return self.mapped(p, "output", y), v

    def mapped(self, p: dict[str, np.ndarray], side: str, value: str) -> str:
        for operator, name in (("Mul", f"{side}_w"), ("Add", f"{side}_b")):
            if name in p:
                value = self.add(operator, value, self.constant(p[name], name))
        return value

    def synapses(
        self, layer: dict[str, Any], p: dict[str, np.ndarray], prefix: str
    ) -> Synapses | None:
        """Add the constants of the synapses, if there are any."""
        post, pre, numbers = synapses(layer, p, prefix)
        if not len(pre):
            return None
        # The place of each among those that lead to the same neuron.
        place = np.arange(len(pre)) - np.searchsorted(post, post)
        neurons, degree = layer["units"], int(place.max()) + 1
        table = np.zeros((4, neurons, degree))
        table[:, post, place] = numbers.T
        sources = np.zeros((neurons, degree), dtype=np.int64)
        sources[post, place] = pre
        pick = self.integers(list(sources.reshape(-1)))
        shape = self.integers([0, neurons, degree])
        columns = map(self.constant, table, Synapses._fields[2:])
        return Synapses._make((pick, shape, *columns, self.integers([2])))

    def run_wired_cfc(
        self, layer: dict[str, Any], p: dict[str, np.ndarray], x: str, h: str, dt: str
    ) -> tuple[str, str]:
        after = []
        for index, own in enumerate(self.split(h, layer["cells"])):
            x = self.cell(layer, under(p, f"rnn_cell.layer_{index}."), self.concat([x, own]), dt)
            after.append(x)
        return self.project(p, x), self.concat(after)

    def run_cfc(
        self, layer: dict[str, Any], p: dict[str, np.ndarray], x: str, h: str, dt: str
    ) -> tuple[str, str]:
        cell = under(p, "rnn_cell.")
        z = self.concat([x, h])
        for index in range(layer["backbone_layers"]):
            key = f"backbone.{2 * index}"
            z = self.dense(z, cell[f"{key}.weight"], cell[f"{key}.bias"])
            z = self.activation(layer["activation"], z)
        h = self.cell(layer, cell, z, dt)
        return self.project(p, h), h

    def project(self, p: dict[str, np.ndarray], y: str) -> str:
        return self.dense(y, p["fc.weight"], p["fc.bias"]) if "fc.weight" in p else y

    def cell(self, layer: dict[str, Any], p: dict[str, np.ndarray], z: str, dt: str) -> str:
        """Add one CfC cell on its input and state, put together; return its next state."""
        mask = p.get("sparsity_mask", np.float32(1))

        def head(name: str) -> str:
            weight = p[f"{name}.weight"]
            masked = weight * mask if name in ("ff1", "ff2") else weight
            return self.dense(z, masked, p[f"{name}.bias"])

        def value(name: str) -> str:
            return self.constant(p[name], name) if name == "A" else self.constant(np.abs(p[name]))

        return self.heads(layer["mode"], head, value, dt)
