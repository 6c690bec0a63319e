"""One time step of a cell in the operators of ONNX, whoever writes the nodes down.

``onnx_graph.py`` writes a model file so, ``onnx_operators.py`` what ``torch.onnx`` exports. A value
is whatever stands for one there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .errors import ExportError

# The unfolds are written one after the other.
_MAX_UNFOLDS = 64


class Synapses(NamedTuple):
    """The synapses of an LTC by neuron, padded to the most that lead to one, D, with zeros."""

    pick: Any
    """Where each comes from, ``[N D]``."""
    shape: Any
    """``[0, N, D]``, to reshape to; the 0 is the batch."""
    slope: Any
    """``[N, D]``, as the next three."""
    midpoint: Any
    conductance: Any
    current: Any
    last: Any
    """``[2]``, the axis of D."""


class Cells:
    """Writes the nodes of a time step. The batch is the first axis of all values."""

    def add(self, operator: str, *inputs: Any, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node; return its output, or a list of them."""
        raise NotImplementedError

    def constant(self, values: Any, name: str = "constant") -> Any:
        """Return a constant of the dtype of the signals."""
        raise NotImplementedError

    def integers(self, values: Sequence[int]) -> Any:
        """Return an int64 constant."""
        raise NotImplementedError

    def split(self, value: Any, sizes: Sequence[int]) -> list[Any]:
        """Return the columns of a value in so many parts."""
        if len(sizes) == 1:
            return [value]
        return self.add("Split", value, self.integers(sizes), outputs=len(sizes), axis=1)

    def concat(self, values: Sequence[Any]) -> Any:
        """Put the columns of values beside each other."""
        return values[0] if len(values) == 1 else self.add("Concat", *values, axis=1)

    def product(self, value: Any, weight: Any, bias: Any) -> Any:
        """Add a linear map."""
        return self.add("Gemm", value, weight, bias, transB=1)

    def activation(self, function: str, x: Any) -> Any:
        """Add an activation of a model or a backbone."""
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

    def memory(self, gates: Any, c: Any, units: int) -> tuple[Any, Any]:
        """Add the memory cell of mixed memory behind its map, ``prepared.memory_gates``."""
        activation, write, keep, read = self.split(gates, [units] * 4)
        kept = self.add("Mul", c, self.add("Sigmoid", keep))
        added = self.add("Mul", self.add("Tanh", activation), self.add("Sigmoid", write))
        c = self.add("Add", kept, added)
        return self.add("Mul", self.add("Tanh", c), self.add("Sigmoid", read)), c

    def through(
        self, synapses: Synapses | None, value: Any, current: Any, conductance: Any
    ) -> tuple[Any, Any]:
        """Add to currents and conductances what comes through synapses."""
        if synapses is None:
            return current, conductance
        taken = self.add("Gather", value, synapses.pick, axis=1)
        taken = self.add("Reshape", taken, synapses.shape)
        shifted = self.add("Sub", taken, synapses.midpoint)
        opened = self.add("Sigmoid", self.add("Mul", synapses.slope, shifted))
        sums = [
            self.add("ReduceSum", self.add("Mul", opened, factor), synapses.last, keepdims=0)
            for factor in (synapses.current, synapses.conductance)
        ]
        return self.add("Add", current, sums[0]), self.add("Add", conductance, sums[1])

    def bounded_input(self, u: Any) -> Any:
        """Keep mapped inputs of an LTC finite: times the slope 0 of no synapse, infinity is NaN."""
        return self.add("Clip", u, self.constant(-1e28), self.constant(1e28))

    def ltc(
        self,
        capacitance: Any,
        current: Any,
        conductance: Any,
        recurrent: Synapses | None,
        unfolds: int,
        v: Any,
        dt: Any,
    ) -> Any:
        """Add the unfolds of an LTC; return its potentials.

        The capacitance is multiplied by the number of unfolds. Current and conductance are those of
        leak and sensory synapses, and epsilon.
        """
        if unfolds > _MAX_UNFOLDS:
            raise ExportError(
                f"ode_unfolds: expected at most {_MAX_UNFOLDS} for ONNX, got {unfolds}"
            )
        held, moves = v, self.add("Greater", dt, self.constant(0))
        # Past these the potentials are at their limits to rounding, and products with dt overflow.
        dt = self.add("Clip", dt, self.constant(1e-29), self.constant(1e24))
        for _ in range(unfolds):
            flow, total = self.through(recurrent, v, current, conductance)
            above = self.add("Add", self.add("Mul", capacitance, v), self.add("Mul", dt, flow))
            below = self.add("Add", capacitance, self.add("Mul", dt, total))
            v = self.add("Div", above, below)
        # A time step of 0 holds the potentials, also where cm is 0.
        return self.add("Where", moves, v, held)

    def heads(
        self, mode: str, head: Callable[[str], Any], value: Callable[[str], Any], dt: Any
    ) -> Any:
        """Add one CfC cell; return its next state.

        ``head`` adds the map of this name, ``value`` returns ``|w_tau|`` or ``A``.
        """
        if mode == "pure":
            f = head("ff1")
            rate = self.add("Add", value("w_tau"), self.add("Abs", f))
            decay = self.add("Exp", self.add("Neg", self.add("Mul", dt, rate)))
            a = value("A")
            return self.add("Sub", a, self.add("Mul", self.add("Mul", a, decay), f))
        f1, f2 = (self.add("Tanh", head(name)) for name in ("ff1", "ff2"))
        a, b = head("time_a"), head("time_b")
        r = self.add("Sigmoid", self.add("Add", self.add("Mul", a, dt), b))
        gained = self.add("Mul", r, f2)
        if mode == "no_gate":
            return self.add("Add", f1, gained)
        kept = self.add("Mul", f1, self.add("Sub", self.constant(1), r))
        return self.add("Add", kept, gained)
