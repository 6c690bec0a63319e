"""The integer C99 of each kind of layer: its constants, its function and how that is called."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from fastltc._parameters import CFC_HEADS

from . import int_templates as c
from .c_layers import Arrays, LayerCode
from .errors import ExportError
from .int_numbers import (
    bits_for,
    finer,
    multiplier_of,
    offset_step,
    quantised_channel,
    quantised_rows,
    quantised_sigmoids,
)
from .int_ranges import Trace, function_of, seen
from .prepared import memory_gates, neurons, synapses, under

ROW_BYTES = 12
# Of the functions of a backbone whose values have an end.
_ENDS = {"tanh": 15, "sigmoid": 15, "lecun_tanh": 14, "softmax": 15}


class IntegerLayer(LayerCode):
    """The code of one layer in integers.

    Args:
        index: which layer it is.
        layer: its description.
        wide: the parts, by their names, whose weights have 16 bits and not 8; None: all.
        dt_bits: fractional bits of a time step.
        input_bits: ``[I]``, those of its inputs.
        trace: what the float model met.
        index_bytes: of the number of a neuron or input.
    """

    def __init__(
        self,
        index: int,
        layer: dict[str, Any],
        wide: Collection[str] | None,
        dt_bits: int,
        input_bits: np.ndarray,
        trace: Trace,
        index_bytes: int,
    ) -> None:
        super().__init__(f"layer{index}", layer)
        self.where = f"layers[{index}] ({layer['type']})"
        self.index, self.wide, self.dt_bits = index, wide, dt_bits
        # Parts whose weights may have 8 or 16 bits, in the order of the code, and what they have.
        self.parts: dict[str, int] = {}
        self.input_bits, self.trace, self.index_bytes = input_bits, trace, index_bytes
        # Fractional bits of what comes out; set when it is known.
        self.output_bits = 15
        # Type, member, count and what it is.
        self.members: list[tuple[str, str, int, str]] = []

    def bits_of(self, part: str) -> int:
        """Return the bits of the weights of a part, which is noted."""
        self.parts[part] = 16 if self.wide is None or part in self.wide else 8
        return self.parts[part]

    def met_with_state(self) -> np.ndarray:
        """Return inputs and the state before a step, ``[samples, I + N]``."""
        states = self.trace.states[self.index]
        return np.concatenate([self.trace.inputs[self.index], states["before"]], 1)

    def numbers(self, kind: str, name: str, values: Any, what: str, size: int) -> None:
        """Add an array of integers, of so many bytes each."""
        self._add(kind, name, [str(int(v)) for v in np.asarray(values).reshape(-1)], what, size)

    def structs(self, kind: str, name: str, rows: Sequence[Any], what: str, size: int) -> None:
        """Add an array of structs."""
        items = ["{" + ",~".join(str(int(v)) for v in row) + "}" for row in rows]
        self._add(kind, name, items, what, size)

    def weights(self, name: str, values: np.ndarray, what: str, bits: int) -> None:
        """Add a matrix."""
        self.numbers(f"int{bits}_t", name, values, what, bits // 8)

    def rows(self, name: str, rows: Sequence[Any], what: str) -> None:
        """Add what becomes of sums."""
        self.structs("row", name, rows, what, ROW_BYTES)

    def matrix(
        self,
        name: str,
        p: Arrays,
        what: str,
        bits_in: np.ndarray,
        bits_out: int,
        x: str,
        y: str,
        met: np.ndarray,
    ) -> str:
        """Add the constants of a dense layer; return its call."""
        outputs, inputs = p["weight"].shape
        bias = p.get("bias", np.zeros(outputs))
        bits = self.bits_of(name)
        made = quantised_rows(self.where, p["weight"], bias, bits_in, bits_out, bits, met)
        self.weights(f"{name}_weight", made.weight, what, bits)
        self.rows(f"{name}_rows", made.rows, "What becomes of its sums.")
        return f"dense{bits}({name}_weight, {name}_rows, {x}, {y}, {inputs}, {outputs});"


def generate(out: IntegerLayer, parameters: Arrays) -> None:
    """Add the code of a layer, of the tensors in its state dict."""
    layer, met = out.layer, out.trace.inputs[out.index]
    if layer["type"] == "activation":
        _function(out)
    elif layer["type"] == "linear":
        p = under(parameters, "")
        values = met @ p["weight"].T + p.get("bias", 0.0)
        out.output_bits = bits_for(seen(values))
        out.call = out.matrix(
            out.name, p, "A linear layer.", out.input_bits, out.output_bits, "$x", "$y", met
        )
    else:
        _recurrent(out, parameters)


def _function(out: IntegerLayer) -> None:
    name, bits = out.layer["function"], int(out.input_bits[0])
    if (out.input_bits != bits).any():
        raise AssertionError("inputs of an activation have one scale")
    out.output_bits = _ENDS.get(name, min(bits - 1, 14) if name == "softplus" else bits)
    out.call = f"{name}_of($x, $y, $size, {bits});"


def _recurrent(out: IntegerLayer, parameters: Arrays) -> None:
    name, mixed = out.name, out.layer["mixed_memory"]
    facts = {"name": name, "c": ", int32_t *c" if mixed else "", "memory": ""}
    if out.layer["type"] == "ltc":
        _ltc(out, parameters, facts)
    else:
        _cfc_layer(out, parameters, facts)
    if mixed:
        out.members.append(("int32_t", f"{name}_c", out.layer["units"], "memory of the LSTM cell"))
    state = ", ".join(f"state->{member}" for _, member, _, _ in out.members)
    out.call = f"{name}($x, elapsed, {state}, $y);"


def _memory(out: IntegerLayer, parameters: Arrays, state_bits: int) -> None:
    """Add the LSTM cell of mixed memory."""
    name, inputs, units = out.name, out.layer["input_size"], out.layer["units"]
    weight, bias = memory_gates(parameters)
    bits = np.concatenate([out.input_bits, np.full(units, state_bits)])
    what = "The LSTM cell, gate by gate: [x, h]."
    gates = {"weight": weight, "bias": bias}
    out.matrix(f"{name}_lstm", gates, what, bits, 12, "z", "gates", out.met_with_state())
    # As a multiple of what 16 bits would have.
    c_bits = min(30, bits_for(max(1.0, seen(out.trace.states[out.index]["c"]))) + 15)
    sizes = {"inputs": inputs, "neurons": units, "width": inputs + units, "c_bits": c_bits}
    sizes["h_bits"] = state_bits
    out.text.append(c.LSTM.substitute(sizes, name=name, bits=out.bits_of(f"{name}_lstm")))
    out.take_scratch(inputs + 5 * units)


def _ends(post: np.ndarray, size: int) -> np.ndarray:
    return np.searchsorted(post, np.arange(size), side="right")


def _check_ltc(out: IntegerLayer, table: np.ndarray, conductances: np.ndarray) -> None:
    """Check what keeps the potentials between the reversal potentials."""
    for what, values in (("cm", table[:, 0]), ("gleak", table[:, 1]), ("w", conductances)):
        if (values < 0).any():
            raise ExportError(
                f"{out.where}: {what} is negative ({values.min():.3g}), with which its potentials "
                "have no range; --c alone writes it with floating point"
            )


def _ltc(out: IntegerLayer, parameters: Arrays, facts: dict[str, str]) -> None:
    name, layer = out.name, out.layer
    units, motors, mixed = layer["units"], layer["output_size"], layer["mixed_memory"]
    p = under(parameters, "rnn_cell.")
    table = neurons(layer, p)
    # The map of the inputs is part of the synapses: sigma ((w x + b) - mu).
    w, b = p.get("input_w", np.ones(1)), p.get("input_b", np.zeros(1))
    lists = {}
    for prefix, of in (("sensory_", "sensory"), ("", "recurrent")):
        post, pre, columns = synapses(layer, p, prefix)
        slope, midpoint = columns[:, 0], columns[:, 1]
        if of == "sensory":
            weight, offset = (np.broadcast_to(v, layer["input_size"])[pre] for v in (w, b))
            moved = slope * (midpoint - offset)  # what is left where a weight is 0
            slope = slope * weight
            zero = slope == 0
            midpoint = np.where(zero, moved, moved / np.where(zero, 1.0, slope))
            # A constant: the smallest slope that integers drop again.
            slope = np.where(zero, 1e-12, slope)
            midpoint = np.where(zero, midpoint / 1e-12, midpoint)
        lists[of] = post, pre, slope, midpoint, columns[:, 2], columns[:, 3]
    _check_ltc(out, table, np.concatenate([lists[of][4] for of in lists]))
    potential_bits = bits_for(_hull(table, lists, mixed))
    source_bits = {"sensory": out.input_bits, "recurrent": np.full(units, potential_bits)}
    met = {
        "sensory": out.trace.inputs[out.index],
        "recurrent": out.trace.states[out.index]["after"],
    }

    bits = out.bits_of(f"{name}_synapses")
    records: dict[str, list[Any]] = {of: [] for of in lists}
    rows: list[tuple[int, ...]] = []
    for j in range(units):
        here = {of: np.flatnonzero(lists[of][0] == j) for of in lists}
        g, i = (np.concatenate([lists[of][k][here[of]] for of in lists]) for k in (4, 5))
        opened = []
        for of in lists:
            _, pre, slope, midpoint, *_ = (column[here[of]] for column in lists[of])
            exponent = np.clip(slope * (met[of][:, pre] - midpoint), -50, 50)
            opened.append(1 / (1 + np.exp(-exponent)))
        channel = quantised_channel(
            f"{out.where}, neuron {j}",
            *(g, i, table[j], potential_bits, out.dt_bits, bits),
            opened=np.concatenate(opened, 1),
        )
        shifts, at = {}, 0
        for of in lists:
            _, pre, slope, midpoint, *_ = (column[here[of]] for column in lists[of])
            slopes, offsets, shifts[of] = quantised_sigmoids(
                slope, midpoint, source_bits[of][pre], bits, met[of][:, pre].mean(0)
            )
            own = slice(at, at + len(pre))
            pulls = channel.conductance[own], channel.current[own]
            records[of] += zip(offsets, slopes, *pulls, pre, strict=True)
            at += len(pre)
        leak, leak_current, multiplier, capacitance, exponent, i_shift, g_shift = channel.neuron
        scales = multiplier, capacitance, exponent, i_shift, g_shift
        rows.append((leak, leak_current, *scales, shifts["recurrent"], shifts["sensory"]))
    out.structs("neuron", f"{name}_neurons", rows, "Neurons.", 20)
    size = 12 if bits == 16 else 4 + 2 * out.index_bytes
    loops = {}
    for of, source, indent in (("recurrent", "v[q->from] >> 16", 12), ("sensory", "x[q->from]", 8)):
        loops[of] = ""
        if records[of]:
            what = f"Where the {of} synapses that lead to a neuron end."
            out.integers(f"{name}_{of}_ends", _ends(lists[of][0], units), what)
            what = f"The {of} synapses."
            out.structs(f"synapse{bits}", f"{name}_{of}", records[of], what, size)
            facts_of_loop = {"of": of, "source": source, "step": offset_step(bits), "bits": bits}
            facts_of_loop["finer"] = finer(bits)
            loop = c.SYNAPSE_LOOP.substitute(facts_of_loop, name=name)
            loops[of] = textwrap.indent(loop, " " * indent)
    _ltc_output(out, p, potential_bits)
    if mixed:
        _memory(out, parameters, potential_bits)
        facts["memory"] = c.LTC_MEMORY.substitute(name=name, neurons=units)
    elif not loops["sensory"]:
        facts["memory"] = "    (void)x;\n"
    out.text.append(
        c.LTC.substitute(
            facts,
            inputs=layer["input_size"],
            neurons=units,
            motors=motors,
            unfolds=layer["ode_unfolds"],
            s=", s" if any(loops.values()) else "",
            sensory=loops["sensory"],
            recurrent=loops["recurrent"],
            start_sensory="    s = 0;\n" if loops["sensory"] else "",
            start_recurrent="        s = 0;\n" if loops["recurrent"] else "",
        )
    )
    out.members.append(
        ("int32_t", f"{name}_v", units, f"membrane potentials, Q{potential_bits + 16}")
    )
    out.take_scratch(6 * units + (units if mixed else 0))


def _hull(table: np.ndarray, lists: dict[str, Any], mixed: bool) -> float:
    """Return how far potentials go: they are means of 0 and what they are pulled to."""
    pulls = [1.0 if mixed else 0.0]
    for conductance, current in (
        (table[:, 1], table[:, 2]),
        *((lists[of][4], lists[of][5]) for of in lists),
    ):
        driven = conductance > 0
        pulls.append(float(np.abs(current[driven] / conductance[driven]).max(initial=0.0)))
    return 1.02 * max(pulls) or 1.0


def _ltc_output(out: IntegerLayer, p: Arrays, potential_bits: int) -> None:
    motors = out.layer["output_size"]
    values = out.trace.states[out.index]["after"][:, :motors]
    w = p.get("output_w", np.ones(motors))
    b = p.get("output_b", np.zeros(motors))
    out.output_bits = bits_for(seen(values * w + b))
    rows = [
        (round(b[m] * 2.0**out.output_bits), *multiplier_of(f"{out.where}, output {m}", factor))
        for m, factor in enumerate(w * 2.0 ** (out.output_bits - potential_bits))
    ]
    out.rows(f"{out.name}_output", rows, "The map of the outputs.")


def _cfc_layer(out: IntegerLayer, parameters: Arrays, facts: dict[str, str]) -> None:
    name, layer, states = out.name, out.layer, out.trace.states[out.index]
    bounds = {"default": 1.0, "no_gate": 2.0, "pure": seen(states["after"])}
    h_bits = 15 if layer["mode"] == "default" else 14
    if layer["mode"] == "pure":
        # What the memory cell makes of it is below 1.
        h_bits = bits_for(max(bounds["pure"], 1.0 if layer["mixed_memory"] else 0.0))
    p = under(parameters, "rnn_cell.")
    if layer["mixed_memory"]:
        _memory(out, parameters, h_bits)
        facts["memory"] = f"    {name}_lstm(x, h, c);\n"
    cells = _wired_cfc if layer["type"] == "wired_cfc" else _cfc
    calls, read, size = cells(out, p, h_bits)
    out.output_bits = h_bits
    output = f"memcpy(y, {read}, {size} * sizeof *y);"
    if layer["proj_size"] is not None:
        fc = under(parameters, "fc.")
        last = states["after"][:, -size:]
        values = last @ fc["weight"].T + fc["bias"]
        out.output_bits = bits_for(seen(values))
        what = "The map of the outputs."
        bits = np.full(size, h_bits)
        output = out.matrix(f"{name}_fc", fc, what, bits, out.output_bits, read, "y", last)
    out.text.append(c.CFC.substitute(facts, calls=calls, output=output))
    out.members.append(("int16_t", f"{name}_h", layer["units"], f"neurons, Q{h_bits}"))


def _loop(head: str, *body: str) -> str:
    return "".join([f"for ({head}) {{\n", *(f"    {line}\n" for line in body), "}\n"])


def _cell(
    out: IntegerLayer,
    function: str,
    prefix: str,
    made: list[Any],
    p: Arrays,
    loop: str,
    h_bits: int,
    **facts: Any,
) -> None:
    """Add the function of a cell on its inputs and state, and the constants of its neurons."""
    rows = [row for neuron in zip(*(each.rows for each in made), strict=True) for row in neuron]
    out.rows(
        f"{prefix}_rows", rows, "What becomes of the sums of " + ", ".join(CFC_HEADS[: len(made)])
    )
    if out.layer["mode"] == "pure":
        for key, name, what in (("w_tau", "rate", "|w_tau|, Q16"), ("A", "a", "A, Q16")):
            values = np.abs(p[key][0]) if key == "w_tau" else p[key][0]
            if (np.abs(values) > 2.0**13).any():
                raise ExportError(f"{out.where}: a range that overflows: {key} above 8192")
            out.numbers("int32_t", f"{prefix}_{name}", np.rint(values * 2**16), what, 4)
        neuron = c.PURE.substitute(prefix=prefix, loop=loop, h_bits=h_bits)
    else:
        gated = "(f1 * (32768 - open) + f2 * open) >> 15"
        blend = "(f1 + (f2 * open >> 15)) >> 1" if out.layer["mode"] == "no_gate" else gated
        neuron = c.GATED.substitute(prefix=prefix, loop=loop, blend=blend)
    facts = {"buffers": "", "before": "", "weight": "", **facts}
    out.text.append(
        c.CELL.substitute(facts, function=function, neuron=textwrap.indent(neuron, " " * 8))
    )


def _heads(
    out: IntegerLayer,
    part: str,
    p: Arrays,
    mask: np.ndarray | None,
    bits: np.ndarray,
    met: np.ndarray,
) -> list[Any]:
    """Return the heads of a cell as integers; their values are Q16."""
    pure = out.layer["mode"] == "pure"
    made = []
    for head in CFC_HEADS[:1] if pure else CFC_HEADS:
        weight = p[f"{head}.weight"]
        if mask is not None and head in CFC_HEADS[:2]:
            weight = np.where(mask != 0, weight, 0.0)
        # A plain cell has its heads side by side, a masked one in two parts.
        gate = mask is not None and head in CFC_HEADS[2:]
        own_bits = out.bits_of(f"{part}_clocks" if gate else part)
        made.append(
            quantised_rows(
                f"{out.where}, {head}", weight, p[f"{head}.bias"], bits, 16, own_bits, met
            )
        )
    return made


def _wired_cfc(out: IntegerLayer, p: Arrays, h_bits: int) -> tuple[str, str, int]:
    """Add the cells of a wired CfC; return their calls, and where the last one's state is."""
    before, start, calls, read = out.layer["input_size"], 0, [], "x"
    bits, states = out.input_bits, out.trace.states[out.index]
    incoming = out.trace.inputs[out.index]
    for index, size in enumerate(out.layer["cells"]):
        cell = f"{out.name}_cell{index}"
        own = slice(start, start + size)
        met = np.concatenate([incoming, states["before"][:, own]], 1)
        _masked_cell(out, cell, before, size, under(p, f"layer_{index}."), bits, h_bits, met)
        incoming = states["after"][:, own]
        target = f"h + {start}" if start else "h"
        calls.append(f"    {cell}({read}, dt, {target});")
        out.take_scratch(before + size)
        read, before, start, bits = target, size, start + size, np.full(size, h_bits)
    return "\n".join(calls), read, before


def _masked_cell(
    out: IntegerLayer,
    cell: str,
    inputs: int,
    size: int,
    p: Arrays,
    bits: np.ndarray,
    h_bits: int,
    met: np.ndarray,
) -> None:
    mask = p["sparsity_mask"]
    post, pre = np.nonzero(mask)
    bits = np.concatenate([bits, np.full(size, h_bits)])
    made = _heads(out, cell, p, mask, bits, met)
    loop, weight, counters = "", "", ", s = 0" if len(pre) else ""
    if len(pre):
        what = "Where the synapses that lead to a neuron end."
        out.integers(f"{cell}_ends", _ends(post, size), what)
        what = f"Where each comes from: an input below {inputs}, else a neuron."
        out.integers(f"{cell}_from", pre, what)
        heads = made[:2]
        rows = np.stack([head.weight[post, pre] for head in heads], 1)
        what = "The synapses: " + ", ".join(CFC_HEADS[: len(heads)])
        out.weights(f"{cell}_synapses", rows, what, out.parts[cell])
        sums = ("f",) if len(made) == 1 else ("f1", "f2")
        loop = _loop(
            f"; s < {cell}_ends[j]; ++s",
            f"const int32_t signal = z[{cell}_from[s]];",
            *(
                f"{name} += {cell}_synapses[{len(sums)} * s + {k}] * signal;"
                if k
                else f"{name} += {cell}_synapses[{len(sums)} * s] * signal;"
                for k, name in enumerate(sums)
            ),
        )
    if len(made) > 1:
        rows = np.stack([head.weight.reshape(-1) for head in made[2:]], 1)
        clocks = out.parts[f"{cell}_clocks"]
        out.weights(f"{cell}_clocks", rows, "The gate in time: time_a, time_b.", clocks)
        over_all = f"k = 0; k < {inputs + size}; ++k, clock += 2"
        loop += _loop(over_all, "a += clock[0] * z[k];", "b += clock[1] * z[k];")
        weight = f"    const int{clocks}_t *clock = {cell}_clocks;\n"
        counters = f", k{counters}"
    sizes = {"inputs": inputs, "size": size, "all": inputs + size}
    _cell(out, cell, cell, made, p, loop, h_bits, weight=weight, counters=counters, **sizes)


def _cfc(out: IntegerLayer, p: Arrays, h_bits: int) -> tuple[str, str, int]:
    """Add backbone and cell of a plain CfC; return its call, and where its state is."""
    name, layer = out.name, out.layer
    inputs, size, units = layer["input_size"], layer["units"], layer["backbone_units"]
    bits = np.concatenate([out.input_bits, np.full(size, h_bits)])
    met = out.met_with_state()
    read, before, function = "z", "", layer["activation"]
    for index in range(layer["backbone_layers"]):
        target, own = f"dense{index % 2}", under(p, f"backbone.{2 * index}.")
        sums = met @ own["weight"].T + own["bias"]
        # Of what has ends, all that lies before them.
        made_bits = 12 if function in _ENDS else bits_for(seen(sums))
        what = "A backbone layer."
        call = out.matrix(f"{name}_backbone{index}", own, what, bits, made_bits, read, target, met)
        before += f"    {call}\n    {function}_of({target}, {target}, {units}, {made_bits});\n"
        met = function_of(function, sums)
        bits = np.full(units, _ENDS.get(function, made_bits))
        read = target
    made = _heads(out, f"{name}_heads", p, None, bits, met)
    rows = np.stack([head.weight.reshape(-1) for head in made], 1)
    bits_of_heads = out.parts[f"{name}_heads"]
    out.weights(f"{name}_heads", rows, ", ".join(CFC_HEADS[: len(made)]), bits_of_heads)
    width, count = rows.shape[0] // size, len(made)
    sums = ("f",) if count == 1 else ("f1", "f2", "a", "b")
    loop = _loop(
        f"k = 0; k < {width}; ++k, w += {count}",
        *(f"{each} += w[{k}] * {read}[k];" for k, each in enumerate(sums)),
    )
    buffers = min(layer["backbone_layers"], 2)
    declared = "".join(f", dense{index}[{units}]" for index in range(buffers))
    facts: dict[str, Any] = {
        "inputs": inputs,
        "size": size,
        "all": inputs + size,
        "counters": ", k",
    }
    facts |= {"weight": f"    const int{bits_of_heads}_t *w = {name}_heads;\n"}
    facts["before"] = before
    _cell(out, f"{name}_cell", name, made, p, loop, h_bits, buffers=declared, **facts)
    out.take_scratch(inputs + size + buffers * units)
    return f"    {name}_cell(x, dt, h);", "h", size
