"""C99 for microcontrollers: a model as one header and one source, weights as constants.

The generated code allocates nothing, calls no function of the C library but ``expf`` and
``memcpy``, and follows the synapses of the wiring. The parameters are prepared here, in float64:
the softplus is applied, the leak is multiplied with its potential, and so on.
"""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .._files import write_bytes
from ..runtime.model import Model, check_model, unit_in_words
from ..runtime.model_file import model_digest
from . import c_templates as c
from .c_constants import FLOAT_BYTES, Constants, floats, integers, number, records, texts
from .errors import ExportError

__all__ = ["CSource", "generate_c", "in_words", "write_c"]


@dataclass(frozen=True)
class CSource:
    """Generated C, and what it takes.

    Args:
        name: prefix of its functions, types and files.
        header: text of ``name.h``.
        source: text of ``name.c``.
        table_bytes: size of the constants.
        state_bytes: size of the state of one stream.
        scratch_bytes: the largest sum of arrays that are on the stack at once.
    """

    name: str
    header: str
    source: str
    table_bytes: int
    state_bytes: int
    scratch_bytes: int


@dataclass
class _Layer:
    """The code of one layer, and what it needs."""

    text: list[str]
    call: Callable[[str, str], str]
    helpers: set[str] = field(default_factory=set)
    state: list[tuple[str, int, str]] = field(default_factory=list)
    table_bytes: int = 0
    scratch_floats: int = 0


def write_c(model: Model, folder: str | os.PathLike[str], name: str = "model") -> CSource:
    """Write ``name.h`` and ``name.c`` into a folder, which is made if it is not there.

    Args:
        model: what to write, see :func:`fastltc.exporting.describe`.
        folder: where to.
        name: prefix of functions, types and files; a C identifier.

    Returns:
        What was written, and its sizes.

    Raises:
        ExportError: (a ValueError) if the name is no C identifier.
        OSError: if a file cannot be written.
    """
    code = generate_c(model, name)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / f"{name}.h", code.header.encode())
    write_bytes(folder / f"{name}.c", code.source.encode())
    return code


def generate_c(model: Model, name: str = "model") -> CSource:
    """Return a model as C99 source; see :func:`write_c`.

    Raises:
        ExportError: (a ValueError) if the name is no C identifier.
        ValueError: if the model is not valid.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,40}", name) or name.lower() in _RESERVED:
        raise ExportError(f"name: expected a C identifier of at most 41 letters, got {name!r}")
    check_model(model)
    layers: list[_Layer] = []
    for index, layer in enumerate(model.layers):
        parameters = {k: v.astype(np.float64) for k, v in model.parameters(index).items()}
        layers.append(_GENERATORS[layer["type"]](f"layer{index}", layer, parameters))
    helpers = {need for layer in layers for need in layer.helpers}
    while True:
        needed = helpers | {need for helper in helpers for need in c.HELPERS[helper].needs}
        if needed == helpers:
            break
        helpers = needed
    from .. import __version__

    facts = _facts(model, __version__)
    state = [entry for layer in layers for entry in layer.state]
    step, buffer_floats = _step(model, layers, name)
    source = c.SOURCE.substitute(
        name=name,
        facts=facts,
        helpers="\n".join(h.text.strip("\n") + "\n" for n, h in c.HELPERS.items() if n in helpers),
        layers="\n".join(text for layer in layers for text in layer.text),
        step=step,
    )
    header = c.HEADER.substitute(
        name=name,
        upper=name.upper(),
        facts=facts,
        inputs=model.input_size,
        outputs=model.output_size,
        floats=model.state_size,
        unit=unit_in_words(model.time_unit),
        time_unit=number(model.time_unit),
        names="".join(
            f"/* An initializer of {size} strings in UTF-8, for whom they are of use. */\n"
            f"#define {name.upper()}_{key}_NAMES {texts(names)}\n"
            for key, size, names in (
                ("INPUT", model.input_size, model.input_names),
                ("OUTPUT", model.output_size, model.output_names),
            )
            if names
        ),
        members="\n".join(f"    float {key}[{size}]; /* {what} */" for key, size, what in state),
    )
    return CSource(
        name=name,
        header=header,
        source=source,
        table_bytes=sum(layer.table_bytes for layer in layers),
        state_bytes=FLOAT_BYTES * model.state_size,
        scratch_bytes=FLOAT_BYTES * (max(layer.scratch_floats for layer in layers) + buffer_floats),
    )


def _facts(model: Model, version: str) -> str:
    lines = [
        f"Generated by fastltc {version} from a model with sha256",
        f"{model_digest(model)}:",
        *(f"  layer {index}: {in_words(layer)}" for index, layer in enumerate(model.layers)),
    ]
    return "\n * ".join(
        line for text in lines for line in textwrap.wrap(text, 94, subsequent_indent="    ")
    )


def in_words(layer: dict[str, Any]) -> str:
    """Return the description of a layer for people."""
    kind = layer["type"]
    if kind == "activation":
        return str(layer["function"])
    sizes = f"{layer['input_size']} inputs, {layer['output_size']} outputs"
    if kind == "linear":
        return f"linear, {sizes}"
    memory = ", an LSTM cell before it" if layer["mixed_memory"] else ""
    if kind == "ltc":
        return f"LTC, {layer['units']} neurons, {layer['ode_unfolds']} unfolds, {sizes}{memory}"
    if kind == "wired_cfc":
        cells = " + ".join(str(cell) for cell in layer["cells"])
        return f"wired CfC, {cells} neurons, mode {layer['mode']}, {sizes}{memory}"
    return (
        f"CfC, {layer['units']} neurons, mode {layer['mode']}, {layer['backbone_layers']} backbone "
        f"layers of {layer['backbone_units']} with {layer['activation']}, {sizes}{memory}"
    )


def _softplus(values: np.ndarray) -> np.ndarray:
    # As torch's, with its threshold.
    return np.where(values > 20, values, np.log1p(np.exp(np.minimum(values, 20))))


def _ltc(name: str, layer: dict[str, Any], p: dict[str, np.ndarray]) -> _Layer:
    inputs, neurons, motors = layer["input_size"], layer["units"], layer["output_size"]
    positive = _softplus if layer["implicit_param_constraints"] else (lambda values: values)
    out = Constants()
    memory = _memory(name, layer, p, out)
    leak = positive(p["rnn_cell.gleak"])
    rows = np.stack(
        [
            positive(p["rnn_cell.cm"]) * layer["ode_unfolds"],
            leak + layer["epsilon"],
            leak * p["rnn_cell.vleak"],
        ],
        1,
    )
    out.add(records("neuron", f"{name}_neurons", rows, "Neurons."))
    loops = set()
    for prefix, of in (("", "recurrent"), ("sensory_", "sensory")):
        mask = p[f"rnn_cell.{prefix}sparsity_mask"]
        post, pre = np.nonzero(mask.T)
        if not len(pre):
            continue
        weight = positive(p[f"rnn_cell.{prefix}w"])[pre, post]
        columns = [
            p[f"rnn_cell.{prefix}sigma"][pre, post],
            p[f"rnn_cell.{prefix}mu"][pre, post],
            weight,
            weight * p[f"rnn_cell.{prefix}erev"][pre, post],
        ]
        ends = [int(end) for end in np.searchsorted(post, np.arange(neurons), side="right")]
        source = "neuron" if of == "recurrent" else "input"
        out.add(
            integers(
                f"{name}_{of}_ends", ends, f"Where the {of} synapses that lead to a neuron end."
            )
        )
        out.add(
            integers(f"{name}_{of}_from", [int(i) for i in pre], f"The {source} each comes from.")
        )
        out.add(records("synapse", f"{name}_{of}", np.stack(columns, 1), f"The {of} synapses."))
        loops.add(of)
    mapped, read = "", "x"
    if layer["input_mapping"] is not None and "sensory" in loops:
        read, offset = "u", ""
        out.add(floats(f"{name}_input_w", p["rnn_cell.input_w"], "The map of the inputs."))
        if layer["input_mapping"] == "affine":
            out.add(floats(f"{name}_input_b", p["rnn_cell.input_b"], "Its offsets."))
            offset = f" + {name}_input_b[k]"
        mapped = (
            f"    for (k = 0; k < {inputs}; ++k) {{\n"
            f"        u[k] = x[k] * {name}_input_w[k]{offset};\n    }}\n"
        )
    output = "v[j]"
    if layer["output_mapping"] is not None:
        out.add(floats(f"{name}_output_w", p["rnn_cell.output_w"], "The map of the outputs."))
        output += f" * {name}_output_w[j]"
    if layer["output_mapping"] == "affine":
        out.add(floats(f"{name}_output_b", p["rnn_cell.output_b"], "Its offsets."))
        output += f" + {name}_output_b[j]"

    def loop(of: str, source: str, indent: int) -> str:
        if of not in loops:
            return ""
        text = c.SYNAPSE_LOOP.substitute(name=name, of=of, source=source)
        return textwrap.indent(text, " " * indent)

    sensory, recurrent = loop("sensory", read, 8), loop("recurrent", "v", 12)
    unused = "" if sensory or memory else "    (void)x;\n"
    out.text.append(
        c.LTC.substitute(
            name=name,
            inputs=inputs,
            neurons=neurons,
            motors=motors,
            unfolds=layer["ode_unfolds"],
            declared=f"    float u[{inputs}];\n" if mapped else "",
            k=", k" if mapped else "",
            s=", s" if loops else "",
            mapped=mapped,
            sensory=sensory,
            recurrent=recurrent,
            start_sensory="    s = 0;\n" if sensory else "",
            start_recurrent="        s = 0;\n" if recurrent else "",
            memory=unused + (memory.call if memory else ""),
            c=", float *c" if memory else "",
            output=output,
        )
    )
    helpers = {"neuron", *(memory.helpers if memory else ())}
    if loops:
        helpers |= {"synapse", "sigmoid"}
    scratch = 3 * neurons + (inputs if mapped else 0) + (memory.scratch if memory else 0)
    return _recurrent(name, layer, out, helpers, scratch, "membrane potentials")


def _recurrent(
    name: str,
    layer: dict[str, Any],
    out: Constants,
    helpers: set[str],
    scratch: int,
    what: str,
) -> _Layer:
    neurons = layer["units"]
    state = [(f"{name}_h", neurons, what)]
    extra = ""
    if layer["mixed_memory"]:
        state.append((f"{name}_c", neurons, "memory of the LSTM cell"))
        extra = f", state->{name}_c"
    return _Layer(
        out.text,
        lambda x, y: f"{name}({x}, dt, state->{name}_h{extra}, {y});",
        helpers,
        state,
        out.bytes,
        scratch,
    )


@dataclass
class _Memory:
    call: str
    helpers: set[str]
    scratch: int


def _memory(
    name: str, layer: dict[str, Any], p: dict[str, np.ndarray], out: Constants
) -> _Memory | None:
    if not layer["mixed_memory"]:
        return None
    inputs, neurons = layer["input_size"], layer["units"]
    bias = p["lstm.input_map.bias"].copy()
    bias[2 * neurons : 3 * neurons] += 1.0  # the forget gate's constant offset
    weight = np.concatenate([p["lstm.input_map.weight"], p["lstm.recurrent_map.weight"]], 1)
    out.add(floats(f"{name}_lstm_weight", weight, "The LSTM cell, gate by gate: [x, h]."))
    out.add(floats(f"{name}_lstm_bias", bias, "Its offsets."))
    out.text.append(
        c.LSTM.substitute(name=name, inputs=inputs, neurons=neurons, width=inputs + neurons)
    )
    return _Memory(
        f"    {name}_lstm(x, {'v' if layer['type'] == 'ltc' else 'h'}, c);\n",
        {"sigmoid", "hyptan", "dense"},
        inputs + 5 * neurons,
    )


def _wired_cfc(name: str, layer: dict[str, Any], p: dict[str, np.ndarray]) -> _Layer:
    out = Constants()
    memory = _memory(name, layer, p, out)
    before, start, calls, read = layer["input_size"], 0, [], "x"
    scratch = 0
    for index, size in enumerate(layer["cells"]):
        own = {
            key.removeprefix(f"rnn_cell.layer_{index}."): value
            for key, value in p.items()
            if key.startswith(f"rnn_cell.layer_{index}.")
        }
        cell = f"{name}_cell{index}"
        _masked_cell(cell, layer["mode"], before, size, own, out)
        target = f"h + {start}" if start else "h"
        calls.append(f"    {cell}({read}, dt, {target});")
        scratch = max(scratch, before + size)
        read, before, start = target, size, start + size
    last = layer["cells"][-1]
    helpers = {"absolute"}
    if layer["mode"] != "pure":
        helpers = {"sigmoid", "hyptan", "heads", "clock"}
        if any(mask.any() for key, mask in p.items() if key.endswith("sparsity_mask")):
            helpers.add("synapse_pair")
    return _cfc_function(
        name, layer, p, out, memory, "\n".join(calls), read, last, helpers, scratch
    )


def _masked_cell(
    cell: str, mode: str, inputs: int, size: int, p: dict[str, np.ndarray], out: Constants
) -> None:
    post, pre = np.nonzero(p["sparsity_mask"])
    loop = ""
    if len(pre):
        ends = [int(end) for end in np.searchsorted(post, np.arange(size), side="right")]
        out.add(integers(f"{cell}_ends", ends, "Where the synapses that lead to a neuron end."))
        out.add(
            integers(
                f"{cell}_from",
                [int(i) for i in pre],
                f"Where each comes from: an input below {inputs}, else a neuron.",
            )
        )
    if mode == "pure":
        if len(pre):
            out.add(floats(f"{cell}_weight", p["ff1.weight"][post, pre], "The synapses: ff1."))
            loop = c.PURE_LOOP.substitute(cell=cell)
        rows = np.stack([p["ff1.bias"], np.abs(p["w_tau"][0]), p["A"][0]])
        for row, (key, what) in zip(
            rows,
            (("bias", "The offsets of ff1."), ("rate", "|w_tau|"), ("a", "A")),
            strict=True,
        ):
            out.add(floats(f"{cell}_{key}", row, what))
    else:
        if len(pre):
            rows = np.stack([p["ff1.weight"][post, pre], p["ff2.weight"][post, pre]], 1)
            out.add(records("synapse_pair", f"{cell}_synapses", rows, "The synapses: ff1, ff2."))
            loop = c.PAIR_LOOP.substitute(cell=cell)
        rows = np.stack([p["time_a.weight"].reshape(-1), p["time_b.weight"].reshape(-1)], 1)
        out.add(
            records("clock_weight", f"{cell}_clocks", rows, "The gate in time: time_a, time_b.")
        )
        rows = np.stack([p[f"{key}.bias"] for key in ("ff1", "ff2", "time_a", "time_b")], 1)
        out.add(records("heads", f"{cell}_bias", rows, "Offsets: ff1, ff2, time_a, time_b."))
    facts = {"cell": cell, "inputs": inputs, "size": size, "width": inputs + size}
    facts |= {"loop": loop, "s": ", s = 0" if loop else ""}
    if mode == "pure":
        out.text.append(c.PURE_CELL.substitute(facts))
    else:
        out.text.append(c.MASKED_CELL.substitute(facts, blend=c.BLEND[mode]))


def _cfc(name: str, layer: dict[str, Any], p: dict[str, np.ndarray]) -> _Layer:
    inputs, neurons = layer["input_size"], layer["units"]
    out = Constants()
    memory = _memory(name, layer, p, out)
    units, count, mode = layer["backbone_units"], layer["backbone_layers"], layer["mode"]
    width = units if count else inputs + neurons
    lines = [
        f"    memcpy(z, x, {inputs} * sizeof *z);",
        f"    memcpy(z + {inputs}, h, {neurons} * sizeof *z);",
    ]
    read, wide = "z", inputs + neurons
    helpers = {"absolute"} if mode == "pure" else {"sigmoid", "hyptan", "heads"}
    for index in range(count):
        target = f"dense{index % 2}"
        key = f"rnn_cell.backbone.{2 * index}"
        out.add(floats(f"{name}_backbone{index}", p[f"{key}.weight"], "A backbone layer."))
        out.add(floats(f"{name}_backbone{index}_bias", p[f"{key}.bias"], "Its offsets."))
        lines += [
            f"    dense({name}_backbone{index}, {name}_backbone{index}_bias, {read}, {target}, "
            f"{wide}, {units});",
            f"    {layer['activation']}_of({target}, {target}, {units});",
        ]
        helpers |= {"dense", f"{layer['activation']}_of"}
        read, wide = target, units
    if mode == "pure":
        out.add(floats(f"{name}_weight", p["rnn_cell.ff1.weight"], "ff1"))
        for values, (key, what) in zip(
            (p["rnn_cell.ff1.bias"], np.abs(p["rnn_cell.w_tau"][0]), p["rnn_cell.A"][0]),
            (("bias", "The offsets of ff1."), ("rate", "|w_tau|"), ("a", "A")),
            strict=True,
        ):
            out.add(floats(f"{name}_{key}", values, what))
    else:
        heads = ("ff1", "ff2", "time_a", "time_b")
        rows = np.stack([p[f"rnn_cell.{key}.weight"].reshape(-1) for key in heads], 1)
        out.add(records("heads", f"{name}_heads", rows, "ff1, ff2, time_a, time_b."))
        rows = np.stack([p[f"rnn_cell.{key}.bias"] for key in heads], 1)
        out.add(records("heads", f"{name}_bias", rows, "Their offsets."))
    buffers = "".join(f", dense{index}[{units}]" for index in range(min(count, 2)))
    facts = {"name": name, "inputs": inputs, "neurons": neurons, "all": inputs + neurons}
    facts |= {"buffers": buffers, "before": "\n".join(lines), "read": read, "width": width}
    if mode == "pure":
        out.text.append(c.DENSE_PURE.substitute(facts))
    else:
        out.text.append(c.DENSE_CELL.substitute(facts, blend=c.BLEND[mode]))
    scratch = inputs + neurons + min(count, 2) * units
    call = f"    {name}_cell(x, dt, h);"
    return _cfc_function(name, layer, p, out, memory, call, "h", neurons, helpers, scratch)


def _cfc_function(
    name: str,
    layer: dict[str, Any],
    p: dict[str, np.ndarray],
    out: Constants,
    memory: _Memory | None,
    calls: str,
    read: str,
    size: int,
    helpers: set[str],
    scratch: int,
) -> _Layer:
    if layer["proj_size"] is None:
        output = f"    memcpy(y, {read}, {size} * sizeof *y);"
    else:
        out.add(floats(f"{name}_fc", p["fc.weight"], "The map of the outputs."))
        out.add(floats(f"{name}_fc_bias", p["fc.bias"], "Its offsets."))
        projected = layer["proj_size"]
        output = f"    dense({name}_fc, {name}_fc_bias, {read}, y, {size}, {projected});"
        helpers.add("dense")
    out.text.append(
        c.CFC.substitute(
            name=name,
            c=", float *c" if memory else "",
            memory=memory.call if memory else "",
            calls=calls,
            output=output,
        )
    )
    if memory:
        helpers |= memory.helpers
        scratch = max(scratch, memory.scratch)
    return _recurrent(name, layer, out, helpers, scratch, "neurons")


def _linear(name: str, layer: dict[str, Any], p: dict[str, np.ndarray]) -> _Layer:
    inputs, outputs = layer["input_size"], layer["output_size"]
    out = Constants()
    out.add(floats(f"{name}_weight", p["weight"], "A linear layer."))
    bias = "NULL"
    if layer["bias"]:
        out.add(floats(f"{name}_bias", p["bias"], "Its offsets."))
        bias = f"{name}_bias"
    return _Layer(
        out.text,
        lambda x, y: f"dense({name}_weight, {bias}, {x}, {y}, {inputs}, {outputs});",
        {"dense"},
        table_bytes=out.bytes,
    )


def _activation(name: str, layer: dict[str, Any], p: dict[str, np.ndarray]) -> _Layer:
    function = f"{layer['function']}_of"
    return _Layer([], lambda x, y: f"{function}({x}, {y}, SIZE);", {function})


_GENERATORS = {
    "ltc": _ltc,
    "wired_cfc": _wired_cfc,
    "cfc": _cfc,
    "linear": _linear,
    "activation": _activation,
}


def _step(model: Model, layers: list[_Layer], name: str) -> tuple[str, int]:
    """Return the body of the step function, and the floats of its buffers."""
    calls: list[str] = []
    sizes = {"buffer0": 0, "buffer1": 0}
    read, width, turn = "input", model.input_size, 0
    for index, (layer, made) in enumerate(zip(model.layers, layers, strict=True)):
        width = layer.get("output_size", width)
        if all(later["type"] == "activation" for later in model.layers[index + 1 :]):
            target = "output"
        elif layer["type"] == "activation" and read != "input":
            target = read
        else:
            target, turn = f"buffer{turn}", 1 - turn
        if target in sizes:
            sizes[target] = max(sizes[target], width)
        calls.append("    " + made.call(read, target).replace("SIZE", str(width)))
        read = target
    declared = [f"    float {buffer}[{size}];\n" for buffer, size in sizes.items() if size]
    body = c.STEP.substitute(
        buffers="".join(declared),
        upper=name.upper(),
        inputs=model.input_size,
        calls="\n".join(calls),
    )
    return body, sum(sizes.values())


# What the generated code uses itself, in whatever letters, and words of C.
_RESERVED = {
    *("auto", "break", "case", "char", "const", "continue", "default", "do", "double", "else"),
    *("enum", "extern", "float", "for", "goto", "if", "inline", "int", "long", "register"),
    *("restrict", "return", "short", "signed", "sizeof", "static", "struct", "switch"),
    *("typedef", "union", "unsigned", "void", "volatile", "while", "state"),
}
