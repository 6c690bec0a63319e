"""The CUDA kernels of the LTC operators against those of the CPU, and streams, graphs, devices."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fastltc.ops import ltc, stacked_synapse_list
from ltc_cases import (
    GRADIENTS,
    Case,
    operator_arguments,
    random_case,
    random_weights,
    raw_arguments,
    run_operator,
    with_gradients,
)

pytestmark = pytest.mark.cuda

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-3}
# One for each plan and more: a warp, two warps' worth of neurons, a full block, tiles.
SIZES = {
    "one neuron": {"batch": 1, "time": 1, "inputs": 1, "neurons": 1, "motors": 1, "density": 1.0},
    "warp": {"batch": 130, "time": 17, "inputs": 16, "neurons": 19, "motors": 2, "density": 0.15},
    "warp of many synapses": {"batch": 3, "time": 4, "neurons": 32, "motors": 4, "density": 0.3},
    "small block": {"batch": 5, "time": 6, "neurons": 33, "motors": 33, "density": 0.5},
    "full block": {"batch": 7, "time": 5, "inputs": 32, "neurons": 64, "motors": 2, "density": 1.0},
    "clusters of four": {"batch": 40, "time": 5, "neurons": 90, "motors": 5, "density": 0.9},
    "clusters": {"batch": 133, "time": 4, "inputs": 8, "neurons": 200, "motors": 8, "density": 1.0},
    "big clusters": {"batch": 260, "time": 3, "neurons": 256, "motors": 256, "density": 1.0},
    "tiles": {"batch": 40, "time": 3, "inputs": 8, "neurons": 300, "motors": 8, "density": 0.3},
    "no samples": {"batch": 0, "time": 3},
    "no steps": {"batch": 3, "time": 0},
}


def on(case: Case, device: str = "cuda") -> Case:
    def moved(tensors: dict[str, Tensor | None]) -> dict[str, Tensor | None]:
        return {k: None if t is None else t.to(device) for k, t in tensors.items()}

    return replace(
        case,
        data=moved(case.data),
        parameters=moved(case.parameters),
        memory=moved(case.memory),
        lengths=None if case.lengths is None else case.lengths.to(device),
    )


def run_on_device(case: Case) -> tuple[Tensor, Tensor]:
    """Run with the synapse lists where the case is."""
    *tensors, synapses, sensory = operator_arguments(case)
    device = case.data["x"].device
    memory = list(case.memory.values()) or None
    return ltc(*tensors, synapses.to(device), sensory.to(device), **case.options, memory=memory)


def results(case: Case, weights: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    device = case.data["x"].device
    moved = tuple(w.to(device, case.data["x"].dtype) for w in weights)
    return with_gradients(run_on_device, case, moved)


def agree(case: Case, dtype: torch.dtype) -> None:
    weights = random_weights(case)
    expected = with_gradients(run_operator, case, weights)
    actual = results(on(case.to(dtype)), weights)
    assert actual.keys() == expected.keys()
    for name, value in actual.items():
        scale = max(1.0, expected[name].abs().max().item()) if value.numel() else 1.0
        torch.testing.assert_close(
            value.cpu().double(), expected[name], rtol=0, atol=TOLERANCE[dtype] * scale, msg=name
        )


@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("size", SIZES)
def test_values_of_every_plan(size: str, dtype: torch.dtype, memory: bool) -> None:
    agree(random_case(**SIZES[size], memory=memory), dtype)


@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize("size", ["warp", "small block", "clusters of four", "tiles"])
@pytest.mark.parametrize(
    "options",
    [
        {"timespans": None},
        {"timespans": "BTN"},
        {"lengths": True},
        {"lengths": True, "return_sequences": False},
        {"time_major": True},
        {"h0": False, "maps": ""},
        {"softplus": False},
    ],
    ids=lambda options: " ".join(f"{k}={v}" for k, v in options.items()),
)
def test_values_of_every_option(size: str, options: dict[str, Any], memory: bool) -> None:
    # Clusters run float32 alone.
    dtype = torch.float32 if "cluster" in size else torch.float64
    agree(random_case(**{**SIZES[size], "batch": 4, "memory": memory, **options}), dtype)


def stacked(cases: list[Case]) -> tuple[list[Any], list[Tensor], dict[str, Any]]:
    """Return the tensors, synapse lists and options of layers beside each other."""
    x, h0, timespans = (
        torch.cat([case.data[name] for case in cases], -1)
        if cases[0].data[name] is not None
        else None
        for name in ("x", "h0", "timespans")
    )
    parameters = [
        None
        if cases[0].parameters[name] is None
        else torch.stack([case.parameters[name] for case in cases])
        for name in cases[0].parameters
    ]
    lists = [
        stacked_synapse_list(torch.stack([getattr(case, name) for case in cases]), name)
        for name in ("mask", "sensory_mask")
    ]
    return [x, h0, timespans, None, parameters], lists, cases[0].options


@pytest.mark.parametrize("timespans", [None, "BTN"])
@pytest.mark.parametrize("size", ["one neuron", "warp", "small block", "full block", "tiles"])
def test_values_of_several_layers(size: str, timespans: str | None) -> None:
    sizes = {**SIZES[size], "batch": 4, "time": 3, "timespans": timespans}
    tensors, lists, options = stacked([random_case(**sizes) for _ in range(3)])
    weights: list[Tensor] = []

    def run(device: str) -> list[Tensor]:
        x, h0, spans, _, parameters = tensors
        own = [None if t is None else t.to(device).requires_grad_() for t in (x, h0, spans)]
        held = [None if p is None else p.to(device).requires_grad_() for p in parameters]
        moved = [entries.to(device) for entries in lists]
        outputs = ltc(*own, None, held, *moved, **options)
        if not weights:
            weights.extend(torch.randn_like(t) for t in outputs)
        total = sum((t * w.to(device)).sum() for t, w in zip(outputs, weights, strict=True))
        leaves = [t for t in (*own, *held) if t is not None]
        return [t.detach().cpu() for t in (*outputs, *torch.autograd.grad(total, leaves))]

    for got, expected in zip(run("cuda"), run("cpu"), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10, equal_nan=True)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("memory", [False, True])
def test_half_types_are_stored_and_computed_in_float32(half: torch.dtype, memory: bool) -> None:
    case = random_case(dtype=half, memory=memory, lengths=True)
    # The masks stay on the CPU, where the reference takes them.
    weights = random_weights(case)
    got, expected = results(on(case), weights), results(on(case.to(torch.float32)), weights)
    for name, value in got.items():
        assert value.dtype == half, name
        assert torch.equal(value, expected[name].to(half)), name


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("narrow", [False, True], ids=["float32 x", "half x"])
def test_autocast_computes_and_returns_float32(half: torch.dtype, narrow: bool) -> None:
    case = on(random_case(dtype=torch.float32, poison=False)).requiring_grad()
    if narrow:
        case = case.with_(x=case.data["x"].detach().to(half).requires_grad_())
    with torch.autocast("cuda", half):
        output, hn = run_on_device(case)
    assert output.dtype == hn.dtype == torch.float32
    wide = case.with_(x=case.data["x"].detach().float())
    expected, expected_hn = run_on_device(wide)
    assert torch.equal(output, expected)
    assert torch.equal(hn, expected_hn)
    (gradient,) = torch.autograd.grad(output.sum(), [case.data["x"]])
    assert gradient.dtype == case.data["x"].dtype


def test_strided_inputs() -> None:
    case = random_case(batch=6, time=5)
    x = case.data["x"]
    weights = random_weights(case)
    expected = results(on(case), weights)
    strided = on(case).with_(x=x.cuda().transpose(0, 1).contiguous().transpose(0, 1))
    actual = results(strided, weights)
    for name, value in actual.items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize("neurons", [5, 34, 66])
def test_gradcheck(neurons: int, memory: bool) -> None:
    sizes = {"batch": 2, "time": 2, "inputs": 2, "neurons": neurons, "density": 1.0}
    case = on(random_case(**sizes, memory=memory, ode_unfolds=2, poison=False))
    # Away from 0, which has no lower neighbour.
    case = case.with_(timespans=case.data["timespans"] + 0.5).requiring_grad()
    names = [name for name in GRADIENTS if case.leaves[name] is not None]

    def run(*leaves: Tensor) -> tuple[Tensor, Tensor]:
        return run_on_device(case.with_(**dict(zip(names, leaves, strict=True))))

    assert torch.autograd.gradcheck(run, [case.leaves[n] for n in names], fast_mode=True)


@pytest.mark.parametrize("size", ["warp", "clusters of four", "tiles"])
def test_opcheck(size: str) -> None:
    dtype = torch.float32 if "cluster" in size else torch.float64
    all_arguments = raw_arguments(on(random_case(**SIZES[size], dtype=dtype)), True)
    *arguments, synapses, sensory = all_arguments[:8]
    rest = all_arguments[8:]
    torch.library.opcheck(
        torch.ops.fastltc.ltc_forward.default,
        (*arguments, synapses.cuda(), sensory.cuda(), *rest),
    )


@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize("size", ["warp", "full block", "clusters", "tiles"])
def test_the_same_call_gives_the_same_bits(size: str, memory: bool) -> None:
    case = random_case(**{**SIZES[size], "batch": 300}, dtype=torch.float32, memory=memory)
    weights = random_weights(case)
    first = results(on(case), weights)
    for _ in range(5):
        again = results(on(case), weights)
        for name, value in again.items():
            assert torch.equal(value, first[name]), name


@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize("size", ["warp", "full block", "clusters", "tiles"])
def test_nothing_waits_for_the_device(size: str, memory: bool) -> None:
    options = {"dtype": torch.float32, "lengths": True, "memory": memory}
    case = on(random_case(**SIZES[size], **options)).requiring_grad()
    *tensors, synapses, sensory = operator_arguments(case)
    lists = synapses.cuda(), sensory.cuda()
    cell = list(case.memory.values()) or None
    torch.cuda.set_sync_debug_mode("error")
    try:
        output, hn = ltc(*tensors, *lists, **case.options, memory=cell)
        torch.autograd.backward([output, hn], [torch.ones_like(output), torch.ones_like(hn)])
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize("size", ["warp", "full block", "clusters", "tiles"])
def test_a_captured_graph_gives_what_a_call_gives(size: str, memory: bool) -> None:
    case = on(random_case(**SIZES[size], dtype=torch.float32, memory=memory)).requiring_grad()
    *tensors, synapses, sensory = operator_arguments(case)
    lists = synapses.cuda(), sensory.cuda()
    cell = list(case.memory.values()) or None
    leaves = [leaf for leaf in case.leaves.values() if leaf is not None]

    def step() -> tuple[Tensor, ...]:
        output, hn = ltc(*tensors, *lists, **case.options, memory=cell)
        return (output, hn, *torch.autograd.grad(output.sum() + hn.square().sum(), leaves))

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        case.data["x"].copy_(torch.randn_like(case.data["x"]))
    graph.replay()
    for got, expected in zip(captured, step(), strict=True):
        assert torch.equal(got, expected)


def test_two_streams_at_once() -> None:
    case = on(random_case(**SIZES["warp"], dtype=torch.float32))
    expected = [t.clone() for t in run_on_device(case)]
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in range(2)]
    outcomes = []
    for _ in range(20):
        for stream in streams:
            with torch.cuda.stream(stream):
                outcomes.append(run_on_device(case))
    torch.cuda.synchronize()
    for outcome in outcomes:
        assert all(torch.equal(got, wanted) for got, wanted in zip(outcome, expected, strict=True))


def test_reduce_overhead() -> None:
    case = on(random_case(**SIZES["warp"], dtype=torch.float32, poison=False))
    *tensors, synapses, sensory = operator_arguments(case)
    lists = synapses.cuda(), sensory.cuda()

    @torch.compile(mode="reduce-overhead", fullgraph=True)
    def compiled(x: Tensor) -> Tensor:
        return ltc(x, *tensors[1:], *lists, **case.options)[0]

    x = case.data["x"]
    expected = ltc(*tensors, *lists, **case.options)[0]
    for _ in range(3):
        assert torch.equal(compiled(x), expected)


@pytest.mark.parametrize("which", ["synapses", "sensory_synapses"])
@pytest.mark.parametrize("inputs", [0, 3])
def test_a_list_longer_than_its_matrix_is_refused(which: str, inputs: int) -> None:
    """Nothing else of a list is read on the host; with no inputs there is no weight to read."""
    case = on(random_case(inputs=inputs, poison=False))
    *tensors, synapses, sensory = operator_arguments(case)
    lists = {"synapses": synapses.cuda(), "sensory_synapses": sensory.cuda()}
    neurons = case.data["h0"].shape[1]
    rows = neurons if which == "synapses" else inputs
    lists[which] = torch.zeros(neurons + 1 + rows * neurons + 1, dtype=torch.int32, device="cuda")
    with pytest.raises(RuntimeError, match=f"{which}: expected {neurons + 1} to .* integers"):
        ltc(*tensors, lists["synapses"], lists["sensory_synapses"], **case.options)


def test_tensors_of_another_device_are_refused() -> None:
    case = on(random_case(poison=False))
    with pytest.raises((RuntimeError, TypeError), match="cuda"):
        run_on_device(case.with_(h0=case.data["h0"].cpu()))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_the_second_device() -> None:
    case = random_case(**SIZES["warp"])
    weights = random_weights(case)
    expected = results(on(case), weights)
    actual = results(on(case, "cuda:1"), weights)
    assert torch.cuda.current_device() == 0
    for name, value in actual.items():
        torch.testing.assert_close(value.cpu(), expected[name].cpu(), rtol=0, atol=1e-10)
