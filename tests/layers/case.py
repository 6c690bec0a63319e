"""What a random layer is to the tests, ways to run one, and comparisons of what comes out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

import torch
from hypothesis import strategies as st
from torch import Tensor
from typing_extensions import Self

Tensors = dict[str, Any]


@dataclass
class Case(ABC):
    """A layer and the arguments of a call; what is masked out is NaN.

    A subclass describes a cell: how a random layer is drawn, how the reference and the operator
    take it, and which of its options deserve a test of everything that all layers promise.
    """

    data: Tensors  # x, h0 and timespans
    parameters: Tensors
    lengths: Tensor | None
    masks: list[Tensor]
    options: dict[str, Any] = field(default_factory=dict)
    memory: dict[str, Tensor] = field(default_factory=dict)
    dropout: Tensor | None = None
    resets: Tensor | None = None

    # "fastltc::{operator}_forward" and "_backward", "fastltc.{cell}".
    operator: ClassVar[str]
    cell: ClassVar[str]
    # fastltc.ops.{operator}
    function: ClassVar[Callable[..., tuple[Tensor, Tensor]]]
    # Options of `random`, by what they are about: ways through an operator; some of them, that
    # compilers and half types are tried with; the equations of the cell; the layouts of its work.
    kinds: ClassVar[dict[str, dict[str, Any]]]
    few: ClassVar[tuple[str, ...]]
    equations: ClassVar[dict[str, dict[str, Any]]]
    layouts: ClassVar[dict[str, dict[str, Any]]]
    # Sizes: odd ones as `random` takes them, more neurons than a vector has lanes, very few.
    sizes: ClassVar[list[tuple[Any, ...]]]
    wide: ClassVar[dict[str, Any]]
    tiny: ClassVar[dict[str, Any]]
    # Options that change which axes the output has, beside those of every layer.
    calls: ClassVar[dict[str, dict[str, Any]]]
    # Densities of the synapses, None where a layer may have no masks.
    densities: ClassVar[tuple[float | None, ...]]
    # A parameter that layers of `wide` and of all kinds have.
    some_parameter: ClassVar[str]
    # How far two ways to the same sum may be apart in float64, and results whose bits no number
    # of threads changes.
    rounding: ClassVar[float]
    thread_proof: ClassVar[tuple[str, ...]]
    # Whether a gradient of a parameter may be a small sum of large terms.
    sums_cancel: ClassVar[bool]

    @classmethod
    @abstractmethod
    def random(cls, batch: int = 3, time: int = 5, inputs: int = 4, **options: Any) -> Self:
        """Draw a layer of 7 or 10 neurons, and its data."""

    @classmethod
    @abstractmethod
    def strategy(cls, draw: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Draw the sizes that follow the inputs, and the options of this cell alone."""

    @abstractmethod
    def reference(self) -> tuple[Tensor, Tensor]:
        """Run ``fastltc.reference``."""

    @abstractmethod
    def arguments(self) -> tuple[Any, ...]:
        """Return what ``function`` takes by position; the rest is ``keywords``."""

    @abstractmethod
    def raw(self) -> dict[str, Any]:
        """Return what is special of the arguments of the raw operators, by their names."""

    @abstractmethod
    def masked(self) -> dict[str, Tensor]:
        """Return the masks of the parameters that have one, by name."""

    @abstractmethod
    def output_of(self, state: Tensor) -> Tensor:
        """Return the output in a state, of a layer as ``random`` draws it by default."""

    @property
    @abstractmethod
    def neurons(self) -> int: ...

    def keywords(self) -> dict[str, Any]:
        memory = list(self.memory.values()) or None
        return {**self.options, "memory": memory, "resets": self.resets}

    @property
    def forward(self) -> Any:
        return getattr(torch.ops.fastltc, f"{self.operator}_forward")

    @property
    def backward(self) -> Any:
        return getattr(torch.ops.fastltc, f"{self.operator}_backward")

    @property
    def leaves(self) -> Tensors:
        return {**self.data, **self.parameters, **self.memory}

    def with_(self, **changes: Any) -> Self:
        """Return a copy with other data, parameters, fields or options, each by its name."""
        parts = {name: dict(getattr(self, name)) for name in ("data", "parameters", "memory")}
        options, rest = dict(self.options), {}
        for name, value in changes.items():
            part = next((part for part in parts.values() if name in part), None)
            if part is not None:
                part[name] = value
            elif any(name == f.name for f in fields(self)):
                rest[name] = value
            else:
                options[name] = value
        return replace(self, **{**parts, "options": options, **rest})

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Return a copy whose data and parameters are changed."""

        def each(tensors: Tensors) -> Tensors:
            return {k: None if t is None else change(t) for k, t in tensors.items()}

        return replace(
            self,
            data=each(self.data),
            parameters=each(self.parameters),
            memory=each(self.memory),
        )

    def to(self, dtype: torch.dtype) -> Self:
        return replace(
            self.map(lambda t: t.detach().to(dtype)),
            masks=[mask.to(dtype) for mask in self.masks],
            dropout=None if self.dropout is None else self.dropout.to(dtype),
        )

    def on(self, device: str) -> Self:
        return replace(
            self.map(lambda t: t.to(device)),
            masks=[mask.to(device) for mask in self.masks],
            dropout=None if self.dropout is None else self.dropout.to(device),
            lengths=None if self.lengths is None else self.lengths.to(device),
            resets=None if self.resets is None else self.resets.to(device),
        )

    def requiring_grad(self) -> Self:
        return self.map(lambda t: t.detach().requires_grad_())


@dataclass(frozen=True)
class Draw:
    """A way to draw layers: a cell, and options of its ``random`` that a call may change."""

    cell: type[Case]
    options: dict[str, Any] = field(default_factory=dict)

    def __call__(self, *sizes: Any, **options: Any) -> Any:
        return self.cell.random(*sizes, **{**self.options, **options})

    def wide(self, *sizes: Any, **options: Any) -> Any:
        return self(*sizes, **{**self.cell.wide, **options})


def random_memory(inputs: int, neurons: int) -> dict[str, Tensor]:
    """Draw the weights of a memory cell."""
    return {
        "memory.weight": torch.randn(4 * neurons, inputs, dtype=torch.float64) * 0.5,
        "memory.bias": torch.randn(4 * neurons, dtype=torch.float64) * 0.5,
        "memory.recurrent_weight": torch.randn(4 * neurons, neurons, dtype=torch.float64) * 0.5,
    }


def random_data(
    sizes: tuple[int, int, int, int], h0: bool, timespans: str | None, lengths: bool, memory: bool
) -> tuple[Tensors, Tensor | None]:
    """Draw the data of a layer, with NaN behind the lengths, and those lengths."""
    batch, time, inputs, neurons = sizes
    shape = {"BT": (batch, time), "BTN": (batch, time, neurons), None: None}[timespans]
    data: Tensors = {
        "x": torch.randn(batch, time, inputs, dtype=torch.float64),
        "h0": torch.randn(batch, neurons * (1 + memory)).double() * 0.5 if h0 else None,
        "timespans": None if shape is None else torch.rand(*shape, dtype=torch.float64) * 2,
    }
    if shape is not None and data["timespans"].numel():
        data["timespans"].view(-1)[0] = 0.0
    if not lengths:
        return data, None
    steps = torch.randint(0, time + 1, (batch,))
    behind = torch.arange(time) >= steps[:, None]
    for name in ("x", "timespans"):
        if data[name] is not None:
            data[name][behind] = torch.nan
    return data, steps


def random_resets(batch: int, time: int, resets: bool) -> Tensor | None:
    """Draw before which steps the state is set to its first value, if before any."""
    return torch.rand(batch, time) < 0.4 if resets else None


def poisoned(case: Case) -> Case:
    """Return a copy with NaN off the masks."""
    masked = case.masked().items()
    return case.with_(
        **{name: torch.where(mask == 1, case.parameters[name], torch.nan) for name, mask in masked}
    )


@st.composite
def cases(draw: Any, cell: type[Case]) -> Case:
    """Draw a layer of any size and options."""
    sizes, options = cell.strategy(draw)
    options |= {
        "h0": draw(st.booleans()),
        "timespans": draw(st.sampled_from([None, "BT", "BTN"])),
        "lengths": draw(st.booleans()),
        "resets": draw(st.booleans()),
        "reset_to_zero": draw(st.booleans()),
        "time_major": draw(st.booleans()),
        "return_sequences": draw(st.booleans()),
    }
    batch = draw(st.one_of(st.integers(1, 12), st.integers(13, 70)))
    time, inputs = draw(st.integers(0, 6)), draw(st.integers(1, 12))
    torch.manual_seed(draw(st.integers(0, 2**31)))
    return cell.random(batch, time, inputs, *sizes, **options)


def run_reference(case: Case) -> tuple[Tensor, Tensor]:
    return case.reference()


def run_operator(case: Case) -> tuple[Tensor, Tensor]:
    return type(case).function(*case.arguments(), **case.keywords())


def by_schema(op: Any, case: Case, **values: Any) -> tuple[Any, ...]:
    """Return the arguments of a raw operator in its order, out of a case and values by name."""
    values = {
        **case.data,
        "lengths": case.lengths,
        "resets": case.resets,
        "parameters": list(case.parameters.values()),
        "memory": list(case.memory.values()),
        "time_major": False,
        "reset_to_zero": False,
        **case.options,
        **case.raw(),
        **values,
    }
    return tuple(values[argument.name] for argument in op.default._schema.arguments)


def raw_arguments(case: Case, save_states: bool, **changed: Any) -> tuple[Any, ...]:
    """Return the arguments of ``case.forward``, with other values for some of them."""
    return by_schema(case.forward, case, save_states=save_states, **changed)


def run_raw(case: Case, save_states: bool = True, **changed: Any) -> tuple[Tensor, Tensor, Tensor]:
    return case.forward(*raw_arguments(case, save_states, **changed))


def backward_arguments(
    case: Case, grads: Sequence[Tensor | None], states: Tensor, timespans_grad: bool
) -> tuple[Any, ...]:
    """Return the arguments of ``case.backward``."""
    values = {"grad_output": grads[0], "grad_hn": grads[1], "states": states}
    return by_schema(case.backward, case, timespans_grad=timespans_grad, **values)


def change_tensors(arguments: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Change the tensors among arguments and in lists of them."""

    def each(value: Any) -> Any:
        if isinstance(value, list):
            return [each(v) for v in value]
        return change(value) if isinstance(value, Tensor) else value

    return tuple(each(value) for value in arguments)


def with_gradients(run: Any, case: Case, weights: Sequence[Tensor]) -> dict[str, Tensor]:
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


def named(results: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return what a layer returns by name."""
    return dict(zip(("output", "hn"), results, strict=True))


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


def assert_same_bits(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, wanted in expected.items():
        assert torch.equal(actual[name], wanted), name


def check_against_reference(case: Case) -> None:
    """Compare outputs and every gradient with the reference, in float64."""
    weights = random_weights(case)
    actual = with_gradients(run_operator, case, weights)
    assert_all_close(actual, with_gradients(run_reference, case, weights))
    for name, mask in case.masked().items():
        assert (actual[f"grad of {name}"][mask == 0] == 0).all(), f"{name}: gradient off the mask"


def check_values(case: Case) -> None:
    """Compare the outputs with the reference, in float64."""
    assert_all_close(named(run_operator(case)), named(run_reference(case)))
