"""ONNX: the operators of fastltc in what ``torch.onnx.export`` writes.

A layer becomes a Loop over time, with any batch and number of steps, whose body is that of
``onnx_graph.py``. What is made of the parameters stands before the loop, as parameters may be
computed by the model; a runtime folds it where they are constants.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .._parameters import CFC_ACTIVATIONS, CFC_HEADS, CFC_MODES, LTC_PARAMETERS
from ..ops.onnx_export import expect_translations
from ..ops.sequence import is_none
from .errors import ExportError
from .onnx_cells import Cells, Synapses


def onnx_translations() -> dict[Any, Callable[..., Any]]:
    """Return what ``torch.onnx.export`` is to write for the operators of fastltc.

    With them a model with LTC, CfC and their kin in it is exported whole, for any batch and any
    number of time steps, with states, time steps, lengths and resets, in float32 or float64, and
    gives the numbers of the layers to rounding. Without them steps are written one after the other,
    as those of ncps are, which is for the number of steps of the example alone. ONNX cannot raise
    errors: negative and NaN time steps give numbers without meaning.

    Returns:
        A dictionary for the argument ``custom_translation_table``.

    Raises:
        ImportError: if the packages ``onnx`` and ``onnxscript`` are not installed.

    Example:
        >>> import torch
        >>> import fastltc
        >>> from fastltc.wirings import AutoNCP
        >>> layer = fastltc.LTC(4, AutoNCP(12, 2)).eval()
        >>> program = torch.onnx.export(
        ...     layer, (torch.randn(2, 6, 4),), dynamic_shapes=({0: "batch", 1: "time"},),
        ...     custom_translation_table=fastltc.onnx_translations(), verbose=False)
        >>> program.save("layer.onnx")

    Source: https://docs.pytorch.org/docs/stable/onnx_export.html
    """
    try:
        import onnx_ir  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "Exporting to ONNX needs the packages onnx and onnxscript: pip install 'fastltc[onnx]'"
        ) from error
    import torch

    numbers = itertools.count()

    def run(layer: Any, data: Sequence[Any], own: Sequence[Any]) -> tuple[Any, Any, Any]:
        x, h0, timespans, lengths, resets, parameters, memory = data
        *own, to_zero, return_sequences, _, _ = own
        nodes = _Nodes(x, next(numbers))
        made = layer(nodes, parameters, *own)
        return _over_time(
            *(nodes, made, x, h0, timespans, lengths, resets, to_zero, memory), return_sequences
        )

    def ltc_forward(*arguments: Any) -> tuple[Any, Any, Any]:
        return run(_LTC, arguments[:7], arguments[7:])

    def cfc_forward(*arguments: Any) -> tuple[Any, Any, Any]:
        return run(_CfC, arguments[:7], arguments[7:])

    def masked_linear(x: Any, weight: Any, bias: Any, entries: Any) -> Any:
        nodes = _Nodes(x, next(numbers))
        outputs, inputs = weight.shape
        ones = (entries.shape[0] - outputs - inputs - 2) // 3
        mask = nodes.constant(np.zeros(outputs * inputs))
        if ones:
            row, column = nodes.connections(entries, outputs, ones)
            place = nodes.add("Add", nodes.add("Mul", row, nodes.integers([inputs])), column)
            mask = nodes.add("ScatterElements", mask, place, nodes.constant(np.ones(ones)))
        mask = nodes.add("Reshape", mask, nodes.integers([outputs, inputs]))
        offsets = nodes.constant(np.zeros(outputs)) if bias is None else bias
        y = nodes.product(x, nodes.on_mask(mask, weight), offsets)
        nodes.record()
        return y

    expect_translations(ltc_forward)
    functions = ltc_forward, cfc_forward, masked_linear
    return {getattr(torch.ops.fastltc, f.__name__).default: f for f in functions}


class _Nodes(Cells):
    """Makes nodes: in the graph, and, between ``begin_body`` and ``end_body``, in a loop's body."""

    def __init__(self, x: Any, number: int) -> None:
        self._dtype = x.dtype
        self._names = (f"fastltc_{number}_{i}" for i in itertools.count())
        self._nodes: list[Any] = []
        self._outer: list[Any] = []

    @property
    def is_double(self) -> bool:
        return self._dtype.name == "DOUBLE"

    def begin_body(self) -> None:
        self._outer, self._nodes = self._nodes, []

    def end_body(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> Any:
        """Return the body as a graph."""
        import onnx_ir

        body = onnx_ir.Graph(inputs, outputs, nodes=self._nodes, name=next(self._names))
        self._nodes = self._outer
        return body

    def record(self) -> None:
        """Put the nodes into the graph that torch writes."""
        from onnxscript import evaluator

        recorder: Any = evaluator.default()
        recorder.nodes.extend(self._nodes)

    def value(self, shape: Sequence[Any], kind: str | None = None) -> Any:
        """Return a new value, for an input of a body."""
        import onnx_ir

        dtype = self._dtype if kind is None else onnx_ir.DataType[kind]
        return onnx_ir.val(next(self._names), dtype, shape)

    def add(self, operator: str, *inputs: Any, outputs: int = 1, **attributes: Any) -> Any:
        import onnx_ir

        made = [onnx_ir.Value(name=next(self._names)) for _ in range(outputs)]
        self._nodes.append(onnx_ir.node(operator, inputs, attributes, outputs=made))
        return made[0] if outputs == 1 else made

    def typed(self, value: Any, like: Any) -> Any:
        """Give a value the dtype of another, as an output of a body has to have one."""
        value.type = like.type
        return value

    def _constant(self, values: Any) -> Any:
        import onnx_ir

        return self.add("Constant", value=onnx_ir.tensor(values))

    def constant(self, values: Any, name: str = "constant") -> Any:
        return self._constant(np.array(values, dtype=self._dtype.numpy()))

    def integers(self, values: Sequence[int]) -> Any:
        return self._constant(np.array(values, dtype=np.int64))

    def columns(self, value: Any, first: int, count: int) -> Any:
        """Return so many columns of a matrix."""
        bounds = (self.integers([number]) for number in (first, first + count, 1))
        return self.add("Slice", value, *bounds)

    def on_mask(self, mask: Any, weight: Any) -> Any:
        exists = self.add("Greater", mask, self.constant(0))
        return self.add("Where", exists, weight, self.constant(0))

    def connections(self, pointers_first: Any, rows: int, count: int) -> tuple[Any, Any]:
        """Return of a list that begins with pointers the row and the entry of each connection."""
        listed = self.add("Cast", pointers_first, to=7)
        ends = self.add("Slice", listed, self.integers([1]), self.integers([rows + 1]))
        entries = self.add(
            "Slice", listed, self.integers([rows + 1]), self.integers([rows + 1 + count])
        )
        # So many rows have ended before each.
        ended = self.add(
            "ScatterElements",
            self.integers([0] * (count + 1)), ends, self.integers([1] * rows),
            reduction="add",
        )  # fmt: skip
        row = self.add("CumSum", ended, self._constant(np.int64(0)))
        return self.add("Slice", row, self.integers([0]), self.integers([count])), entries


class _LTC:
    """An LTC, or several of one shape beside each other."""

    def __init__(
        self,
        nodes: _Nodes,
        parameters: Sequence[Any],
        synapses: Any,
        sensory_synapses: Any,
        maps: int,
        output_size: int,
        unfolds: int,
        epsilon: float,
        softplus: bool,
        medium_sigmoid: bool,
    ) -> None:
        self.nodes, self._unfolds, self._softplus = nodes, unfolds, softplus
        first_map = LTC_PARAMETERS.index("input_w")
        present = [
            name
            for m, name in enumerate(LTC_PARAMETERS)
            if m < first_map or maps >> m - first_map & 1
        ]
        self._p = p = dict(zip(present, parameters, strict=True))
        shape = p["cm"].shape
        nets, own = (1, shape[0]) if len(shape) == 1 else shape
        self.neurons = nets * own
        self.output_size = nets * output_size

        def flat(name: str) -> Any:
            return nodes.add("Reshape", p[name], nodes.integers([-1]))

        leak = self._positive(flat("gleak"))
        self._capacitance = nodes.add("Mul", self._positive(flat("cm")), nodes.constant(unfolds))
        self._leak = nodes.add("Add", leak, nodes.constant(epsilon))
        self._leak_current = nodes.add("Mul", leak, flat("vleak"))
        rows = p["sensory_mu"].shape[-2]
        self._sensory = self._synapses("sensory_", sensory_synapses, rows, own)
        self._recurrent = self._synapses("", synapses, own, own)
        self._maps = {name: flat(name) for name in LTC_PARAMETERS[first_map:] if name in p}
        self._motors = nodes.integers(
            [net * own + motor for net in range(nets) for motor in range(output_size)]
        )

    def _positive(self, value: Any) -> Any:
        if not self._softplus:
            return value
        # As torch's, with its threshold. onnxruntime has no Softplus of doubles.
        add, constant = self.nodes.add, self.nodes.constant
        large = add("Greater", value, constant(20))
        if self.nodes.is_double:
            grown = add("Exp", add("Min", value, constant(20)))
            soft = add("Log", add("Add", constant(1), grown))
        else:
            soft = add("Softplus", value)
        return add("Where", large, value, soft)

    def _synapses(self, prefix: str, listed: Any, rows: int, own: int) -> Synapses | None:
        nodes, neurons = self.nodes, self.neurons
        count = listed.shape[0] - neurons - 1
        if not count:
            return None
        post, pre = nodes.connections(listed, neurons, count)
        # Where its parameters are: [rows, own] of each net, net by net.
        width = nodes.integers([own])
        net = nodes.add("Mul", nodes.add("Div", post, width), nodes.integers([rows]))
        row = nodes.add("Add", net, nodes.add("Mod", pre, nodes.integers([rows])))
        own_place = nodes.add("Add", nodes.add("Mul", row, width), nodes.add("Mod", post, width))

        def of_synapses(name: str) -> Any:
            values = nodes.add("Reshape", self._p[prefix + name], nodes.integers([-1]))
            return nodes.add("Gather", values, own_place)

        conductance = self._positive(of_synapses("w"))
        # The place of each among those that lead to the same neuron.
        first = nodes.add("Gather", nodes.add("Cast", listed, to=7), post)
        place = nodes.add("Sub", nodes.integers(list(range(count))), first)
        most = nodes.add("ReduceMax", place, nodes.integers([0]), keepdims=1)
        degree = nodes.add("Add", most, nodes.integers([1]))
        where = nodes.add("Add", nodes.add("Mul", post, degree), place)
        size = nodes.add("Mul", degree, nodes.integers([neurons]))

        def table(values: Any, zero: Any) -> Any:
            return nodes.add("ScatterElements", nodes.add("Expand", zero, size), where, values)

        shape = nodes.add("Concat", nodes.integers([neurons]), degree, axis=0)
        columns = (
            of_synapses("sigma"),
            of_synapses("mu"),
            conductance,
            nodes.add("Mul", conductance, of_synapses("erev")),
        )
        zero = nodes.constant([0])
        return Synapses._make(
            (
                table(pre, nodes.integers([0])),
                nodes.add("Concat", nodes.integers([0]), shape, axis=0),
                *(nodes.add("Reshape", table(column, zero), shape) for column in columns),
                nodes.integers([2]),
            )
        )

    def _mapped(self, side: str, value: Any) -> Any:
        for operator, name in (("Mul", f"{side}_w"), ("Add", f"{side}_b")):
            if name in self._maps:
                value = self.nodes.add(operator, value, self._maps[name])
        return value

    def step(self, x: Any, v: Any, dt: Any, per_neuron: bool) -> Any:
        x = self.nodes.bounded_input(self._mapped("input", x))
        flow = self.nodes.through(self._sensory, x, self._leak_current, self._leak)
        return self.nodes.ltc(self._capacitance, *flow, self._recurrent, self._unfolds, v, dt)

    def read_out(self, v: Any) -> Any:
        return self._mapped("output", self.nodes.add("Gather", v, self._motors, axis=1))


class _CfC:
    """A CfC: a cell with a backbone, or a chain of cells."""

    def __init__(
        self,
        nodes: _Nodes,
        parameters: Sequence[Any],
        masks: Sequence[Any],
        dropout: Any,
        sizes: Sequence[int],
        backbone_layers: int,
        mode: int,
        activation: int,
        output_size: int,
    ) -> None:
        if dropout is not None:
            raise ExportError("dropout: expected a model in evaluation, got one in training mode")
        self.nodes, self._sizes = nodes, sizes
        self._mode, self._activation = CFC_MODES[mode], CFC_ACTIVATIONS[activation]
        self.neurons, self.output_size = sum(sizes), output_size
        left = iter(parameters)
        masks = [None] * len(sizes) if is_none(masks) else masks
        self._backbone = [(next(left), next(left)) for _ in range(backbone_layers)]
        self._cells = [self._cell(left, mask) for mask in masks]

    def _cell(self, parameters: Iterator[Any], mask: Any) -> dict[str, Any]:
        heads = CFC_HEADS[:1] if self._mode == "pure" else CFC_HEADS
        names = [f"{head}.{kind}" for head in heads for kind in ("weight", "bias")]
        names += ["w_tau", "A"] if self._mode == "pure" else []
        p = {name: next(parameters) for name in names}
        if mask is not None:
            for name in names:
                if name in ("ff1.weight", "ff2.weight"):
                    p[name] = self.nodes.on_mask(mask, p[name])
        if "w_tau" in p:
            p["w_tau"] = self.nodes.add("Abs", p["w_tau"])
        return p

    def step(self, x: Any, h: Any, dt: Any, per_neuron: bool) -> Any:
        nodes, after = self.nodes, []
        spans = nodes.split(dt, self._sizes) if per_neuron else [dt] * len(self._sizes)
        for p, own, span in zip(self._cells, nodes.split(h, self._sizes), spans, strict=True):
            z = nodes.concat([x, own])
            for weight, bias in self._backbone:
                z = nodes.activation(self._activation, nodes.product(z, weight, bias))
            head = functools.partial(self._head, p, z)
            x = nodes.heads(self._mode, head, p.__getitem__, span)
            after.append(x)
        return nodes.concat(after)

    def _head(self, p: dict[str, Any], z: Any, name: str) -> Any:
        return self.nodes.product(z, p[f"{name}.weight"], p[f"{name}.bias"])

    def read_out(self, h: Any) -> Any:
        return self.nodes.columns(h, self.neurons - self.output_size, self.output_size)


def _over_time(
    nodes: _Nodes,
    layer: _LTC | _CfC,
    x: Any,
    h0: Any,
    timespans: Any,
    lengths: Any,
    resets: Any,
    reset_to_zero: bool,
    memory: Sequence[Any],
    return_sequences: bool,
) -> tuple[Any, Any, Any]:
    """Run a layer in a loop; return what its operator does."""
    add, units = nodes.add, layer.neurons
    memory = () if is_none(memory) else memory
    width = 2 * units if memory else units
    batch = add("Shape", x, start=0, end=1)
    if h0 is None:
        shape = add("Concat", batch, nodes.integers([width]), axis=0)
        h0 = add("Expand", nodes.constant(0), shape)
    if memory:
        weight, bias, recurrent = memory
        # The forget gate's constant offset.
        offset = nodes.constant(np.repeat([0, 0, 1, 0], units))
        gates = nodes.concat([weight, recurrent]), add("Add", bias, offset)
    per_neuron = timespans is not None and len(timespans.shape) == 3
    unit, axis = nodes.constant([[1]]), nodes.integers([1])
    ended = None if lengths is None else add("Unsqueeze", lengths, axis)

    nodes.begin_body()
    t, going = nodes.value([], "INT64"), nodes.value([], "BOOL")
    before = nodes.value([None, width])
    x_t, dt = add("Gather", x, t, axis=1), unit
    if timespans is not None:
        dt = add("Gather", timespans, t, axis=1)
        dt = dt if per_neuron else add("Unsqueeze", dt, axis)
    begun = before
    if resets is not None:
        anew = add("Unsqueeze", add("Gather", resets, t, axis=1), axis)
        begun = add("Where", anew, nodes.constant([[0]]) if reset_to_zero else h0, before)
    if memory:
        h, c = nodes.split(begun, [units, units])
        h, c = nodes.memory(nodes.product(nodes.concat([x_t, h]), *gates), c, units)
        h = layer.step(x_t, h, dt, per_neuron)
        after = nodes.concat([h, c])
    else:
        after = h = layer.step(x_t, begun, dt, per_neuron)
    y = layer.read_out(h)
    if ended is not None:
        valid = add("Less", t, ended)
        after, y = add("Where", valid, after, before), add("Where", valid, y, nodes.constant(0))
    # A graph may not give out one value twice, nor one of its inputs.
    given = [
        nodes.typed(add("Identity", value), like)
        for value, like in ((going, going), (after, before), (y, before))
    ]
    body = nodes.end_body([t, going, before], given)

    steps = add("Shape", x, start=1, end=2)
    hn, outputs = add("Loop", steps, None, h0, outputs=2, body=body)
    if return_sequences:
        output = add("Transpose", outputs, perm=[1, 0, 2])
        # Runtimes do not know the batch of a loop that was never run.
        shape = add("Concat", batch, steps, nodes.integers([layer.output_size]), axis=0)
        output = add("Reshape", output, shape, allowzero=1)
    else:
        output = layer.read_out(add("Slice", hn, *map(nodes.integers, ([0], [units], [1]))))
    states = nodes.constant([])
    nodes.record()
    return output, hn, states
