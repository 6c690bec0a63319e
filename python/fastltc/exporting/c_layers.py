"""The C99 of each kind of layer: its constants, its function and how that is called."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np

from . import c_templates as c
from .c_constants import Constants
from .prepared import memory_gates, neurons, positive, under

__all__ = ["LayerCode", "layer_code"]

Arrays = dict[str, np.ndarray]


class LayerCode(Constants):
    """The code of one layer, and what it needs.

    Args:
        name: prefix of what it defines.
        layer: its description.
    """

    def __init__(self, name: str, layer: dict[str, Any]) -> None:
        super().__init__()
        self.name = name
        self.layer = layer
        self.helpers: set[str] = set()
        # Member of the state, its floats, what it is.
        self.state: list[tuple[str, int, str]] = []
        self.scratch_floats = 0
        # From input and output to the call, in which SIZE stands for the number of outputs.
        self.call: Callable[[str, str], str] = lambda x, y: ""

    def take_scratch(self, count: int) -> None:
        """Say that a function has so many floats on the stack."""
        self.scratch_floats = max(self.scratch_floats, count)

    def map(self, name: str, weight: np.ndarray, bias: np.ndarray | None, what: str) -> None:
        """Add the constants of a dense layer, which `dense` multiplies."""
        self.floats(name, weight, what)
        if bias is not None:
            self.floats(f"{name}_bias", bias, "Its offsets.")
        self.helpers.add("dense")


def layer_code(name: str, layer: dict[str, Any], parameters: Arrays) -> LayerCode:
    """Return the code of a layer.

    Args:
        name: prefix of what it defines.
        layer: its description, see docs/export.md.
        parameters: its tensors, by the names in its state dict.
    """
    out = LayerCode(name, layer)
    if layer["type"] == "activation":
        function = f"{layer['function']}_of"
        out.helpers.add(function)
        out.call = lambda x, y: f"{function}({x}, {y}, SIZE);"
    elif layer["type"] == "linear":
        _linear(out, under(parameters, ""))
    else:
        _recurrent(out, parameters)
    return out


def _linear(out: LayerCode, p: Arrays) -> None:
    name, inputs, outputs = out.name, out.layer["input_size"], out.layer["output_size"]
    bias = f"{name}_bias" if out.layer["bias"] else "NULL"
    out.floats(f"{name}_weight", p["weight"], "A linear layer.")
    if out.layer["bias"]:
        out.floats(bias, p["bias"], "Its offsets.")
    out.helpers.add("dense")
    out.call = lambda x, y: f"dense({name}_weight, {bias}, {x}, {y}, {inputs}, {outputs});"


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
        output = f"    memcpy(y, {read}, {size} * sizeof *y);"
        if out.layer["proj_size"] is not None:
            fc = under(parameters, "fc.")
            out.map(f"{name}_fc", fc["weight"], fc["bias"], "The map of the outputs.")
            output = (
                f"    dense({name}_fc, {name}_fc_bias, {read}, y, {size}, "
                f"{out.layer['proj_size']});"
            )
        out.text.append(c.CFC.substitute(facts, calls=calls, output=output))
        what = "neurons"
    out.state.append((f"{name}_h", units, what))
    if mixed:
        out.state.append((f"{name}_c", units, "memory of the LSTM cell"))
    state = ", ".join(f"state->{member}" for member, _, _ in out.state)
    out.call = lambda x, y: f"{name}({x}, dt, {state}, {y});"


def _memory(out: LayerCode, parameters: Arrays) -> str:
    """Add the LSTM cell of mixed memory; return its call."""
    name, inputs, units = out.name, out.layer["input_size"], out.layer["units"]
    weight, bias = memory_gates(parameters)
    out.map(f"{name}_lstm_weight", weight, None, "The LSTM cell, gate by gate: [x, h].")
    out.floats(f"{name}_lstm_bias", bias, "Its offsets.")
    sizes = {"inputs": inputs, "neurons": units, "width": inputs + units}
    out.text.append(c.LSTM.substitute(sizes, name=name))
    out.helpers |= {"sigmoid", "hyptan"}
    out.take_scratch(inputs + 5 * units)
    return f"    {name}_lstm(x, {'v' if out.layer['type'] == 'ltc' else 'h'}, c);\n"


def _ends(post: np.ndarray, size: int) -> np.ndarray:
    return np.searchsorted(post, np.arange(size), side="right")


def _ltc(out: LayerCode, p: Arrays, facts: dict[str, str]) -> None:
    name, layer, memory = out.name, out.layer, facts["memory"]
    inputs, units = layer["input_size"], layer["units"]
    out.records("neuron", f"{name}_neurons", neurons(layer, p), "Neurons.")
    loops = set()
    for prefix, of, source in (("", "recurrent", "neuron"), ("sensory_", "sensory", "input")):
        post, pre = np.nonzero(p[f"{prefix}sparsity_mask"].T)
        if not len(pre):
            continue
        sigma, mu, w, erev = (p[f"{prefix}{k}"][pre, post] for k in ("sigma", "mu", "w", "erev"))
        w = positive(layer, w)
        what = f"Where the {of} synapses that lead to a neuron end."
        out.integers(f"{name}_{of}_ends", _ends(post, units), what)
        out.integers(f"{name}_{of}_from", pre, f"The {source} each comes from.")
        columns = np.stack([sigma, mu, w, w * erev], 1)
        out.records("synapse", f"{name}_{of}", columns, f"The {of} synapses.")
        loops.add(of)
    mapped, read = "", "x"
    if layer["input_mapping"] is not None and "sensory" in loops:
        read = "u"
        mapped = (
            f"    for (k = 0; k < {inputs}; ++k) {{\n"
            f"        u[k] = x[k]{_mapping(out, p, 'input', 'k')};\n    }}\n"
        )
    output = f"v[j]{_mapping(out, p, 'output', 'j')}"

    def loop(of: str, source: str, indent: int) -> str:
        if of not in loops:
            return ""
        text = c.SYNAPSE_LOOP.substitute(name=name, of=of, source=source)
        return textwrap.indent(text, " " * indent)

    sensory, recurrent = loop("sensory", read, 8), loop("recurrent", "v", 12)
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
            s=", s" if loops else "",
            mapped=mapped,
            sensory=sensory,
            recurrent=recurrent,
            start_sensory="    s = 0;\n" if sensory else "",
            start_recurrent="        s = 0;\n" if recurrent else "",
            output=output,
        )
    )
    out.helpers |= {"neuron", "synapse", "sigmoid"} if loops else {"neuron"}
    # The memory cell is called while the potentials' arrays are there.
    out.scratch_floats += 3 * units + (inputs if mapped else 0)


def _mapping(out: LayerCode, p: Arrays, side: str, index: str) -> str:
    """Add the map of inputs or outputs; return what is done with a value."""
    text = ""
    if out.layer[f"{side}_mapping"] is not None:
        out.floats(f"{out.name}_{side}_w", p[f"{side}_w"], f"The map of the {side}s.")
        text = f" * {out.name}_{side}_w[{index}]"
    if out.layer[f"{side}_mapping"] == "affine":
        out.floats(f"{out.name}_{side}_b", p[f"{side}_b"], "Its offsets.")
        text += f" + {out.name}_{side}_b[{index}]"
    return text


_HEADS = ("ff1", "ff2", "time_a", "time_b")


def _cell(
    out: LayerCode,
    function: str,
    prefix: str,
    sizes: tuple[int, int],
    p: Arrays,
    loop: str,
    offsets: tuple[str, str],
    **facts: str,
) -> None:
    """Add the function of a CfC cell on its inputs and state, and the constants of its neurons.

    Args:
        out: the layer that it is of.
        function: its name.
        prefix: of the names of its constants.
        sizes: of its inputs and its state.
        p: its parameters.
        loop: the C text that sums up what comes into a neuron.
        offsets: what the offsets are called, of a pure cell and of another.
        facts: what else the template has: `weight`, `counters`, `buffers`, `before`.
    """
    pure = out.layer["mode"] == "pure"
    if pure:
        out.floats(f"{prefix}_bias", p["ff1.bias"], offsets[0])
        out.floats(f"{prefix}_rate", np.abs(p["w_tau"][0]), "|w_tau|")
        out.floats(f"{prefix}_a", p["A"][0], "A")
    else:
        bias = np.stack([p[f"{head}.bias"] for head in _HEADS], 1)
        out.records("heads", f"{prefix}_bias", bias, offsets[1])
    start, end = (c.PURE_START, c.PURE_END) if pure else (c.GATED_START, c.GATED_END)
    inputs, size = sizes
    out.text.append(
        c.CELL.substitute(
            {"buffers": "", "before": "", "weight": "", **facts},
            function=function,
            inputs=inputs,
            size=size,
            all=inputs + size,
            start=start.substitute(prefix=prefix),
            loop=loop,
            end=end.substitute(prefix=prefix, blend=c.BLEND.get(out.layer["mode"], "")),
        )
    )
    out.helpers |= {"absolute"} if pure else {"sigmoid", "hyptan", "heads"}


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
    if len(pre):
        what = "Where the synapses that lead to a neuron end."
        out.integers(f"{cell}_ends", _ends(post, size), what)
        what = f"Where each comes from: an input below {inputs}, else a neuron."
        out.integers(f"{cell}_from", pre, what)
    s, loop, weight = (", s = 0" if len(pre) else ""), "", ""
    if out.layer["mode"] == "pure":
        if len(pre):
            out.floats(f"{cell}_weight", p["ff1.weight"][post, pre], "The synapses: ff1.")
            loop = c.PURE_LOOP.substitute(prefix=cell)
    else:
        if len(pre):
            rows = np.stack([p[f"{head}.weight"][post, pre] for head in _HEADS[:2]], 1)
            out.records("synapse_pair", f"{cell}_synapses", rows, "The synapses: ff1, ff2.")
            loop = c.PAIR_LOOP.substitute(prefix=cell)
            out.helpers.add("synapse_pair")
        rows = np.stack([p[f"{head}.weight"].reshape(-1) for head in _HEADS[2:]], 1)
        what = "The gate in time: time_a, time_b."
        out.records("clock_weight", f"{cell}_clocks", rows, what)
        loop += c.CLOCK_LOOP.substitute(all=inputs + size)
        weight, s = f"    const clock_weight *clock = {cell}_clocks;\n", f", k{s}"
        out.helpers.add("clock")
    offsets = "The offsets of ff1.", "Offsets: ff1, ff2, time_a, time_b."
    _cell(out, cell, cell, (inputs, size), p, loop, offsets, weight=weight, counters=s)


def _cfc(out: LayerCode, p: Arrays) -> tuple[str, str, int]:
    """Add backbone and cell of a plain CfC; return its call, and where its state is."""
    name, layer = out.name, out.layer
    inputs, size, units = layer["input_size"], layer["units"], layer["backbone_units"]
    read, width, before = "z", inputs + size, ""
    for index in range(layer["backbone_layers"]):
        target, own = f"dense{index % 2}", f"{name}_backbone{index}"
        dense = under(p, f"backbone.{2 * index}.")
        out.map(own, dense["weight"], dense["bias"], "A backbone layer.")
        before += (
            f"    dense({own}, {own}_bias, {read}, {target}, {width}, {units});\n"
            f"    {layer['activation']}_of({target}, {target}, {units});\n"
        )
        out.helpers.add(f"{layer['activation']}_of")
        read, width = target, units
    if layer["mode"] == "pure":
        out.floats(f"{name}_weight", p["ff1.weight"], "ff1")
        weight, loop = f"const float *weight = {name}_weight", c.DENSE_PURE_LOOP
    else:
        rows = np.stack([p[f"{head}.weight"].reshape(-1) for head in _HEADS], 1)
        out.records("heads", f"{name}_heads", rows, "ff1, ff2, time_a, time_b.")
        weight, loop = f"const heads *weight = {name}_heads", c.DENSE_LOOP
    buffers = min(layer["backbone_layers"], 2)
    _cell(
        out,
        f"{name}_cell",
        name,
        (inputs, size),
        p,
        loop.substitute(width=width, read=read),
        ("The offsets of ff1.", "Their offsets."),
        weight=f"    {weight};\n",
        counters=", k",
        before=before,
        buffers="".join(f", dense{index}[{units}]" for index in range(buffers)),
    )
    out.take_scratch(inputs + size + buffers * units)
    return f"    {name}_cell(x, dt, h);", "h", size
