"""The C99 of each kind of layer: its constants, its function and how that is called."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastltc._parameters import CFC_HEADS

from . import c_templates as c
from .c_constants import FLOAT_BYTES, number, wrapped
from .prepared import memory_gates, neurons, synapses, under

Arrays = dict[str, np.ndarray]


class LayerCode:
    """The code of one layer. What it defines has its name as a prefix."""

    def __init__(self, name: str, layer: dict[str, Any]) -> None:
        self.name = name
        self.layer = layer
        self.text: list[str] = []
        self.table_bytes = 0
        # Member of the state, its floats, what it is.
        self.state: list[tuple[str, int, str]] = []
        self.scratch_floats = 0
        # With $x and $y for its input and output, $size for the number of outputs.
        self.call = ""

    def take_scratch(self, count: int) -> None:
        """Say that a function has so many floats on the stack."""
        self.scratch_floats = max(self.scratch_floats, count)

    def _add(self, kind: str, name: str, items: Sequence[str], what: str, size: int) -> None:
        self.text.append(
            f"/* {what} */\nstatic const {kind} {name}[{len(items)}] = {{\n{wrapped(items)}\n}};\n"
        )
        self.table_bytes += size * len(items)

    def floats(self, name: str, values: np.ndarray, what: str) -> None:
        """Add an array of floats."""
        numbers = [number(value) for value in np.asarray(values).reshape(-1)]
        self._add("float", name, numbers, what, FLOAT_BYTES)

    def integers(self, name: str, values: np.ndarray, what: str) -> None:
        """Add an array of integers of the smallest type that holds them."""
        smallest = np.min_scalar_type(values.max())
        self._add(f"{smallest}_t", name, list(map(str, values)), what, smallest.itemsize)

    def records(self, kind: str, name: str, rows: np.ndarray, what: str) -> None:
        """Add an array of structs of floats, one for each row."""
        items = ["{" + ",~".join(number(value) for value in row) + "}" for row in rows]
        self._add(kind, name, items, what, FLOAT_BYTES * rows.shape[1])

    def dense(self, name: str, p: Arrays, what: str, x: str, y: str) -> str:
        """Add the constants of a dense layer; return its call."""
        outputs, inputs = p["weight"].shape
        bias = "NULL"
        self.floats(name, p["weight"], what)
        if "bias" in p:
            bias = f"{name.removesuffix('_weight')}_bias"
            self.floats(bias, p["bias"], "Its offsets.")
        return f"dense({name}, {bias}, {x}, {y}, {inputs}, {outputs});"


def layer_code(name: str, layer: dict[str, Any], parameters: Arrays) -> LayerCode:
    """Return the code of a layer, of its description and the tensors in its state dict."""
    out = LayerCode(name, layer)
    if layer["type"] == "activation":
        out.call = f"{layer['function']}_of($x, $y, $size);"
    elif layer["type"] == "linear":
        out.call = out.dense(f"{name}_weight", under(parameters, ""), "A linear layer.", "$x", "$y")
    else:
        _recurrent(out, parameters)
    return out


def _recurrent(out: LayerCode, parameters: Arrays) -> None:
    name, units, mixed = out.name, out.layer["units"], out.layer["mixed_memory"]
    memory = _memory(out, parameters) if mixed else ""
    p = under(parameters, "rnn_cell.")
    facts = {"name": name, "c": ", float *c" if mixed else "", "memory": memory}
    if out.layer["type"] == "ltc":
        _ltc(out, p, facts)
        what = "membrane potentials"
    else:
        cells = _wired_cfc if out.layer["type"] == "wired_cfc" else _cfc
        calls, read, size = cells(out, p)
        output = f"memcpy(y, {read}, {size} * sizeof *y);"
        if out.layer["proj_size"] is not None:
            fc = under(parameters, "fc.")
            output = out.dense(f"{name}_fc", fc, "The map of the outputs.", read, "y")
        out.text.append(c.CFC.substitute(facts, calls=calls, output=output))
        what = "neurons"
    out.state.append((f"{name}_h", units, what))
    if mixed:
        out.state.append((f"{name}_c", units, "memory of the LSTM cell"))
    state = ", ".join(f"state->{member}" for member, _, _ in out.state)
    out.call = f"{name}($x, dt, {state}, $y);"


def _memory(out: LayerCode, parameters: Arrays) -> str:
    """Add the LSTM cell of mixed memory; return its call."""
    name, inputs, units = out.name, out.layer["input_size"], out.layer["units"]
    weight, bias = memory_gates(parameters)
    what = "The LSTM cell, gate by gate: [x, h]."
    out.dense(f"{name}_lstm_weight", {"weight": weight, "bias": bias}, what, "z", "gates")
    sizes = {"inputs": inputs, "neurons": units, "width": inputs + units}
    out.text.append(c.LSTM.substitute(sizes, name=name))
    out.take_scratch(inputs + 5 * units)
    return f"    {name}_lstm(x, {'v' if out.layer['type'] == 'ltc' else 'h'}, c);\n"


def _ends(post: np.ndarray, size: int) -> np.ndarray:
    return np.searchsorted(post, np.arange(size), side="right")


def _ltc(out: LayerCode, p: Arrays, facts: dict[str, str]) -> None:
    name, layer, memory = out.name, out.layer, facts["memory"]
    inputs, units = layer["input_size"], layer["units"]
    out.records("neuron", f"{name}_neurons", neurons(layer, p), "Neurons.")
    mapped = "input_w" in p and p["sensory_sparsity_mask"].any()
    loops = []
    for prefix, of, source, read, indent in (
        ("", "recurrent", "neuron", "v", 12),
        ("sensory_", "sensory", "input", "u" if mapped else "x", 8),
    ):
        post, pre, columns = synapses(layer, p, prefix)
        loops.append("")
        if len(pre):
            what = f"Where the {of} synapses that lead to a neuron end."
            out.integers(f"{name}_{of}_ends", _ends(post, units), what)
            out.integers(f"{name}_{of}_from", pre, f"The {source} each comes from.")
            out.records("synapse", f"{name}_{of}", columns, f"The {of} synapses.")
            loop = c.SYNAPSE_LOOP.substitute(name=name, of=of, source=read)
            loops[-1] = textwrap.indent(loop, " " * indent)
    recurrent, sensory = loops
    u = f"u[k] = x[k]{_mapping(out, p, 'input', 'k')};" if mapped else ""
    facts["memory"] = ("" if sensory or memory else "    (void)x;\n") + memory
    out.text.append(
        c.LTC.substitute(
            facts,
            inputs=inputs,
            neurons=units,
            motors=layer["output_size"],
            unfolds=layer["ode_unfolds"],
            declared=f"    float u[{inputs}];\n" if mapped else "",
            k=", k" if mapped else "",
            s=", s" if sensory or recurrent else "",
            mapped=_indented(_loop(f"k = 0; k < {inputs}; ++k", u), 4) if mapped else "",
            sensory=sensory,
            recurrent=recurrent,
            start_sensory="    s = 0;\n" if sensory else "",
            start_recurrent="        s = 0;\n" if recurrent else "",
            output=f"v[j]{_mapping(out, p, 'output', 'j')}",
        )
    )
    # The memory cell is called while the potentials' arrays are there.
    out.scratch_floats += 3 * units + (inputs if mapped else 0)


def _mapping(out: LayerCode, p: Arrays, side: str, index: str) -> str:
    """Add the map of inputs or outputs; return what is done with a value."""
    text = ""
    for sign, key, what in (("*", "w", f"The map of the {side}s."), ("+", "b", "Its offsets.")):
        if f"{side}_{key}" in p:
            out.floats(f"{out.name}_{side}_{key}", p[f"{side}_{key}"], what)
            text += f" {sign} {out.name}_{side}_{key}[{index}]"
    return text


def _loop(head: str, *body: str) -> str:
    return "".join([f"for ({head}) {{\n", *(f"    {line}\n" for line in body), "}\n"])


def _indented(text: str, by: int) -> str:
    return textwrap.indent(text, " " * by)


def _cell(
    out: LayerCode, name: str, prefix: str, p: Arrays, loop: str, offsets: str, **facts: Any
) -> None:
    """Add the function of a CfC cell on its inputs and state, and the constants of its neurons.

    ``loop`` sums up what comes into a neuron; ``offsets`` is what those of heads are called.
    """
    blend = "f1 + r * f2" if out.layer["mode"] == "no_gate" else "f1 * (1.0f - r) + r * f2"
    if out.layer["mode"] == "pure":
        out.floats(f"{prefix}_bias", p["ff1.bias"], "The offsets of ff1.")
        out.floats(f"{prefix}_rate", np.abs(p["w_tau"][0]), "|w_tau|")
        out.floats(f"{prefix}_a", p["A"][0], "A")
        neuron = c.PURE.substitute(prefix=prefix, loop=loop)
    else:
        bias = np.stack([p[f"{head}.bias"] for head in CFC_HEADS], 1)
        out.records("heads", f"{prefix}_bias", bias, offsets)
        neuron = c.GATED.substitute(prefix=prefix, loop=loop, blend=blend)
    facts = {"buffers": "", "before": "", "weight": "", **facts}
    out.text.append(c.CELL.substitute(facts, function=name, neuron=_indented(neuron, 8)))


def _wired_cfc(out: LayerCode, p: Arrays) -> tuple[str, str, int]:
    """Add the cells of a wired CfC; return their calls, and where the last one's state is."""
    before, start, calls, read = out.layer["input_size"], 0, [], "x"
    for index, size in enumerate(out.layer["cells"]):
        cell = f"{out.name}_cell{index}"
        _masked_cell(out, cell, before, size, under(p, f"layer_{index}."))
        target = f"h + {start}" if start else "h"
        calls.append(f"    {cell}({read}, dt, {target});")
        out.take_scratch(before + size)
        read, before, start = target, size, start + size
    return "\n".join(calls), read, before


def _masked_cell(out: LayerCode, cell: str, inputs: int, size: int, p: Arrays) -> None:
    post, pre = np.nonzero(p["sparsity_mask"])
    loop, weight, counters = "", "", ", s = 0" if len(pre) else ""
    if len(pre):
        what = "Where the synapses that lead to a neuron end."
        out.integers(f"{cell}_ends", _ends(post, size), what)
        what = f"Where each comes from: an input below {inputs}, else a neuron."
        out.integers(f"{cell}_from", pre, what)
    over_synapses = f"; s < {cell}_ends[j]; ++s"
    if out.layer["mode"] == "pure":
        if len(pre):
            out.floats(f"{cell}_weight", p["ff1.weight"][post, pre], "The synapses: ff1.")
            loop = _loop(over_synapses, f"f += {cell}_weight[s] * z[{cell}_from[s]];")
    else:
        if len(pre):
            rows = np.stack([p[f"{head}.weight"][post, pre] for head in CFC_HEADS[:2]], 1)
            out.records("synapse_pair", f"{cell}_synapses", rows, "The synapses: ff1, ff2.")
            loop = _loop(
                over_synapses,
                f"const float signal = z[{cell}_from[s]];",
                f"f1 += {cell}_synapses[s].ff1 * signal;",
                f"f2 += {cell}_synapses[s].ff2 * signal;",
            )
        rows = np.stack([p[f"{head}.weight"].reshape(-1) for head in CFC_HEADS[2:]], 1)
        what = "The gate in time: time_a, time_b."
        out.records("clock_weight", f"{cell}_clocks", rows, what)
        over_all = f"k = 0; k < {inputs + size}; ++k, ++clock"
        loop += _loop(over_all, "a += clock->a * z[k];", "b += clock->b * z[k];")
        weight = f"    const clock_weight *clock = {cell}_clocks;\n"
        counters = f", k{counters}"
    sizes = {"inputs": inputs, "size": size, "all": inputs + size}
    offsets = "Offsets: ff1, ff2, time_a, time_b."
    _cell(out, cell, cell, p, loop, offsets, weight=weight, counters=counters, **sizes)


def _cfc(out: LayerCode, p: Arrays) -> tuple[str, str, int]:
    """Add backbone and cell of a plain CfC; return its call, and where its state is."""
    name, layer = out.name, out.layer
    inputs, size, units = layer["input_size"], layer["units"], layer["backbone_units"]
    read, before = "z", ""
    for index in range(layer["backbone_layers"]):
        target, own = f"dense{index % 2}", under(p, f"backbone.{2 * index}.")
        dense = out.dense(f"{name}_backbone{index}", own, "A backbone layer.", read, target)
        before += f"    {dense}\n    {layer['activation']}_of({target}, {target}, {units});\n"
        read = target
    width = p["ff1.weight"].shape[1]
    over_all = f"k = 0; k < {width}; ++k, ++weight"
    if layer["mode"] == "pure":
        out.floats(f"{name}_weight", p["ff1.weight"], "ff1")
        weight = f"    const float *weight = {name}_weight;\n"
        loop = _loop(over_all, f"f += *weight * {read}[k];")
    else:
        rows = np.stack([p[f"{head}.weight"].reshape(-1) for head in CFC_HEADS], 1)
        out.records("heads", f"{name}_heads", rows, "ff1, ff2, time_a, time_b.")
        weight = f"    const heads *weight = {name}_heads;\n"
        sums = zip(("f1", "f2", "a", "b"), CFC_HEADS, strict=True)
        loop = _loop(over_all, *(f"{s} += weight->{head} * {read}[k];" for s, head in sums))
    buffers = min(layer["backbone_layers"], 2)
    declared = "".join(f", dense{index}[{units}]" for index in range(buffers))
    facts = {"inputs": inputs, "size": size, "all": inputs + size, "counters": ", k"}
    facts |= {"weight": weight, "before": before, "buffers": declared}
    _cell(out, f"{name}_cell", name, p, loop, "Their offsets.", **facts)
    out.take_scratch(inputs + size + buffers * units)
    return f"    {name}_cell(x, dt, h);", "h", size
