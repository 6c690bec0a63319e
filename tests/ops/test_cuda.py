"""The CUDA kernels of all cells against those of the CPU, and streams, graphs, devices."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from cuda_graphs import capture, on_two_streams
from fastltc.ops import ltc, stacked_synapse_list
from layers import (
    CELLS,
    Case,
    Draw,
    LtcCase,
    assert_same_bits,
    over,
    plainly,
    random_weights,
    raw_arguments,
    run_operator,
    with_gradients,
)

pytestmark = pytest.mark.cuda

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-3}
# One for each plan and more. LTC: a warp, two warps' worth of neurons, a full block, clusters,
# tiles. CfC: a warp with weights of each width, a block with its weights in shared memory and
# without, tiles.
SIZES: dict[str, dict[str, dict[str, Any]]] = {
    "LTC": {
        "one neuron": {
            "batch": 1,
            "time": 1,
            "inputs": 1,
            "neurons": 1,
            "motors": 1,
            "density": 1.0,
        },
        "warp": {"batch": 130, "time": 17, "inputs": 16, "neurons": 19, "density": 0.15},
        "warp of many synapses": {
            "batch": 3,
            "time": 4,
            "neurons": 32,
            "motors": 4,
            "density": 0.3,
        },
        "small block": {"batch": 5, "time": 6, "neurons": 33, "motors": 33, "density": 0.5},
        "full block": {"batch": 7, "time": 5, "inputs": 32, "neurons": 64, "density": 1.0},
        "clusters of four": {"batch": 40, "time": 5, "neurons": 90, "motors": 5, "density": 0.9},
        "clusters": {
            "batch": 133,
            "time": 4,
            "inputs": 8,
            "neurons": 200,
            "motors": 8,
            "density": 1.0,
        },
        "big clusters": {
            "batch": 260,
            "time": 3,
            "neurons": 256,
            "motors": 256,
            "density": 1.0,
        },
        "tiles": {
            "batch": 40,
            "time": 3,
            "inputs": 8,
            "neurons": 300,
            "motors": 8,
            "density": 0.3,
        },
    },
    "CfC": {
        "one neuron": {"batch": 1, "time": 1, "inputs": 1, "layer_sizes": (1,), "density": 1.0},
        "few neurons": {"batch": 3, "time": 4, "layer_sizes": (4, 2, 2)},
        "warp": {"batch": 130, "time": 17, "inputs": 16, "layer_sizes": (11, 6, 2)},
        "32 neurons": {"batch": 3, "time": 4, "layer_sizes": (17, 11, 4)},
        "wired block": {"batch": 5, "time": 6, "inputs": 32, "layer_sizes": (36, 20, 8)},
        "backbone": {
            "batch": 7,
            "time": 5,
            "inputs": 3,
            "layer_sizes": (19,),
            "backbone_layers": 2,
            "units": 33,
            "dropout": 0.3,
        },
        "large block": {
            "batch": 5,
            "time": 3,
            "layer_sizes": (64,),
            "backbone_layers": 1,
            "units": 128,
        },
        "tiles": {"batch": 70, "time": 3, "inputs": 8, "layer_sizes": (150,), "density": None},
        "many layers": {"batch": 3, "time": 3, "layer_sizes": (1,) * 13},
    },
}
EVERY_SIZE = {
    f"{name} {size}": Draw(cell, options)
    for name, cell in CELLS.items()
    for size, options in {
        **SIZES.get(name, {}),
        "no samples": {"batch": 0, "time": 3},
        "no steps": {"batch": 3, "time": 0},
    }.items()
}
# The plans that differ in what they do with an option, and in their kernels.
OPTION_PLANS = ["LTC warp", "LTC small block", "LTC clusters of four", "LTC tiles"]
LTC_PLANS = ["LTC warp", "LTC full block", "LTC clusters", "LTC tiles"]
CFC_PLANS = ["CfC warp", "CfC wired block", "CfC backbone", "CfC tiles"]

every_size = over(EVERY_SIZE)
every_plan = over({name: EVERY_SIZE[name] for name in LTC_PLANS + CFC_PLANS})
with_and_without_memory = pytest.mark.parametrize("memory", [False, True])


def results(case: Case, weights: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    device, dtype = case.data["x"].device, case.data["x"].dtype
    return with_gradients(run_operator, case, tuple(w.to(device, dtype) for w in weights))


def on_gpu(case: Case) -> Case:
    return case.on("cuda")


def agree(case: Case, dtype: torch.dtype) -> None:
    weights = random_weights(case)
    expected = with_gradients(run_operator, case, weights)
    actual = results(on_gpu(case.to(dtype)), weights)
    assert actual.keys() == expected.keys()
    for name, value in actual.items():
        scale = max(1.0, expected[name].abs().max().item()) if value.numel() else 1.0
        torch.testing.assert_close(
            value.cpu().double(), expected[name], rtol=0, atol=TOLERANCE[dtype] * scale, msg=name
        )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("draw", "options"),
    [
        pytest.param(draw, options, id=f"{name} {text}")
        for name, draw in EVERY_SIZE.items()
        for text, options in {**draw.cell.equations, "memory": {"memory": True}}.items()
    ],
)
def test_values_of_every_plan(draw: Draw, options: dict[str, Any], dtype: torch.dtype) -> None:
    agree(draw(**options), dtype)


OPTIONS: list[dict[str, Any]] = [
    {"timespans": None},
    {"timespans": "BTN"},
    {"lengths": True},
    {"lengths": True, "return_sequences": False},
    {"lengths": True, "resets": True},
    {"time_major": True},
    {"h0": False},
]
OWN_OPTIONS: dict[str, list[dict[str, Any]]] = {
    "LTC": [{"h0": False, "maps": ""}, {"softplus": False}],
    "CfC": [{"timespans": "BTN", "mode": "pure"}, {"lengths": True, "mode": "pure"}],
}


@with_and_without_memory
@pytest.mark.parametrize(
    ("plan", "options"),
    [
        pytest.param(plan, options, id=" ".join([plan, *(f"{k}={v}" for k, v in options.items())]))
        for plan in OPTION_PLANS + CFC_PLANS
        for options in OPTIONS + OWN_OPTIONS[plan.split()[0]]
    ],
)
def test_values_of_every_option(plan: str, options: dict[str, Any], memory: bool) -> None:
    # Clusters run float32 alone.
    dtype = torch.float32 if "cluster" in plan else torch.float64
    agree(EVERY_SIZE[plan](batch=4, memory=memory, **options), dtype)


@pytest.mark.parametrize("activation", ["lecun_tanh", "silu", "relu", "tanh", "gelu"])
def test_values_of_every_activation(activation: str) -> None:
    agree(EVERY_SIZE["CfC backbone"](activation=activation), torch.float64)


def stacked(cases: list[Case]) -> tuple[list[Any], list[Tensor], dict[str, Any]]:
    """Return the tensors, synapse lists and options of LTC layers beside each other."""
    x, h0, timespans = (
        torch.cat([case.data[name] for case in cases], -1)
        if cases[0].data[name] is not None
        else None
        for name in ("x", "h0", "timespans")
    )
    parameters = [
        None if first is None else torch.stack([case.parameters[name] for case in cases])
        for name, first in cases[0].parameters.items()
    ]
    lists = [
        stacked_synapse_list(torch.stack([case.masks[k] for case in cases]), name)
        for k, name in enumerate(("mask", "sensory_mask"))
    ]
    return [x, h0, timespans, None, parameters], lists, cases[0].options


@pytest.mark.parametrize("timespans", [None, "BTN"])
@pytest.mark.parametrize("size", ["one neuron", "warp", "small block", "full block", "tiles"])
def test_values_of_several_layers(size: str, timespans: str | None) -> None:
    sizes = {**SIZES["LTC"][size], "batch": 4, "time": 3, "timespans": timespans}
    tensors, lists, options = stacked([LtcCase.random(**sizes) for _ in range(3)])
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
@with_and_without_memory
@plainly
def test_half_types_are_stored_and_computed_in_float32(
    draw: Draw, memory: bool, half: torch.dtype
) -> None:
    case = draw(dtype=half, memory=memory, lengths=True)
    weights = random_weights(case)
    expected = results(on_gpu(case.to(torch.float32)), weights)
    for name, value in results(on_gpu(case), weights).items():
        assert value.dtype == half, name
        assert torch.equal(value, expected[name].to(half)), name


@plainly
def test_half_inputs(draw: Draw) -> None:
    case = on_gpu(draw(dtype=torch.float32, poison=False))
    expected, _ = run_operator(case)
    output, hn = run_operator(case.with_(x=case.data["x"].half()))
    assert output.dtype == hn.dtype == torch.float16
    torch.testing.assert_close(output.float(), expected, rtol=0, atol=5e-3)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("narrow", [False, True], ids=["float32 x", "half x"])
@plainly
def test_autocast_computes_and_returns_float32(draw: Draw, narrow: bool, half: torch.dtype) -> None:
    case = on_gpu(draw(dtype=torch.float32, poison=False)).requiring_grad()
    if narrow:
        case = case.with_(x=case.data["x"].detach().to(half).requires_grad_())
    with torch.autocast("cuda", half):
        output, hn = run_operator(case)
    assert output.dtype == hn.dtype == torch.float32
    expected, expected_hn = run_operator(case.with_(x=case.data["x"].detach().float()))
    assert torch.equal(output, expected)
    assert torch.equal(hn, expected_hn)
    (gradient,) = torch.autograd.grad(output.sum(), [case.data["x"]])
    assert gradient.dtype == case.data["x"].dtype


@plainly
def test_strided_inputs(draw: Draw) -> None:
    case = draw(batch=6, time=5)
    weights = random_weights(case)
    moved = on_gpu(case)
    x = moved.data["x"].transpose(0, 1).contiguous().transpose(0, 1)
    assert_same_bits(results(moved.with_(x=x), weights), results(moved, weights))


@pytest.mark.parametrize(
    ("draw", "options"),
    [
        pytest.param(draw, options, id=f"{name} {options}")
        for name, draw, cell_options in (
            *((f"LTC {n}", Draw(LtcCase, {"neurons": n}), [{}]) for n in (5, 34, 66)),
            *((name, EVERY_SIZE[name], [{}, {"mode": "pure"}]) for name in CFC_PLANS),
        )
        for options in (*cell_options, {"memory": True})
    ],
)
def test_gradcheck(draw: Draw, options: dict[str, Any]) -> None:
    if draw.cell is LtcCase:
        options = {**options, "density": 1.0, "ode_unfolds": 2}
    case = on_gpu(draw(batch=2, time=2, inputs=2, **options, poison=False))
    # Away from 0, which has no lower neighbour.
    case = case.with_(timespans=case.data["timespans"] + 0.5)
    leaves = case.requiring_grad().leaves

    def run(*values: Tensor) -> tuple[Tensor, Tensor]:
        return run_operator(case.with_(**dict(zip(leaves, values, strict=True))))

    assert torch.autograd.gradcheck(run, list(leaves.values()), fast_mode=True)


@over({n: EVERY_SIZE[n] for n in ["LTC warp", "LTC clusters of four", "LTC tiles", *CFC_PLANS]})
def test_opcheck(draw: Draw, request: pytest.FixtureRequest) -> None:
    dtype = torch.float32 if "cluster" in request.node.name else torch.float64
    case = on_gpu(draw(dtype=dtype, poison=draw.cell is LtcCase))
    torch.library.opcheck(case.forward.default, raw_arguments(case, True))


@with_and_without_memory
@every_plan
def test_the_same_call_gives_the_same_bits(draw: Draw, memory: bool) -> None:
    case = draw(batch=300, dtype=torch.float32, memory=memory)
    weights = random_weights(case)
    first = results(on_gpu(case), weights)
    for _ in range(5):
        assert_same_bits(results(on_gpu(case), weights), first)


def ready(case: Case) -> Any:
    """Return a call of the operator whose arguments are all on the device."""
    arguments, keywords = case.arguments(), case.keywords()
    return lambda: type(case).function(*arguments, **keywords)


@with_and_without_memory
@every_plan
def test_nothing_waits_for_the_device(draw: Draw, memory: bool) -> None:
    case = on_gpu(draw(dtype=torch.float32, lengths=True, memory=memory)).requiring_grad()
    call = ready(case)
    torch.cuda.set_sync_debug_mode("error")
    try:
        output, hn = call()
        torch.autograd.backward([output, hn], [torch.ones_like(output), torch.ones_like(hn)])
    finally:
        torch.cuda.set_sync_debug_mode("default")


@with_and_without_memory
@every_plan
def test_a_captured_graph_gives_what_a_call_gives(draw: Draw, memory: bool) -> None:
    case = on_gpu(draw(dtype=torch.float32, memory=memory)).requiring_grad()
    call = ready(case)
    leaves = [leaf for leaf in case.leaves.values() if leaf is not None]

    def step() -> tuple[Tensor, ...]:
        output, hn = call()
        return (output, hn, *torch.autograd.grad(output.sum() + hn.square().sum(), leaves))

    graph, captured = capture(step)
    with torch.no_grad():
        case.data["x"].copy_(torch.randn_like(case.data["x"]))
    graph.replay()
    for got, expected in zip(captured, step(), strict=True):
        assert torch.equal(got, expected)


WARPS = over({name: EVERY_SIZE[name] for name in ("LTC warp", "CfC warp")})


@WARPS
def test_two_streams_at_once(draw: Draw) -> None:
    case = on_gpu(draw(dtype=torch.float32))
    expected = [t.clone() for t in run_operator(case)]
    for outcome in on_two_streams(lambda: run_operator(case)):
        assert all(torch.equal(got, wanted) for got, wanted in zip(outcome, expected, strict=True))


@WARPS
def test_reduce_overhead(draw: Draw) -> None:
    case = on_gpu(draw(dtype=torch.float32, poison=False))
    (x, *rest), keywords = case.arguments(), case.keywords()
    function = draw.cell.function

    @torch.compile(mode="reduce-overhead", fullgraph=True)
    def compiled(x: Tensor) -> Tensor:
        return function(x, *rest, **keywords)[0]

    expected = function(x, *rest, **keywords)[0]
    for _ in range(3):
        assert torch.equal(compiled(x), expected)


@pytest.mark.parametrize("which", ["synapses", "sensory_synapses"])
@pytest.mark.parametrize("inputs", [0, 3])
def test_a_list_longer_than_its_matrix_is_refused(which: str, inputs: int) -> None:
    """Nothing else of a list is read on the host; with no inputs there is no weight to read."""
    case = on_gpu(LtcCase.random(inputs=inputs, poison=False))
    *tensors, synapses, sensory = case.arguments()
    lists = {"synapses": synapses, "sensory_synapses": sensory}
    neurons = case.neurons
    rows = neurons if which == "synapses" else inputs
    lists[which] = torch.zeros(neurons + 1 + rows * neurons + 1, dtype=torch.int32, device="cuda")
    with pytest.raises(RuntimeError, match=f"{which}: expected {neurons + 1} to .* integers"):
        ltc(*tensors, *lists.values(), **case.options)


@plainly
def test_tensors_of_another_device_are_refused(draw: Draw) -> None:
    case = on_gpu(draw(poison=False))
    with pytest.raises((RuntimeError, TypeError), match="cuda"):
        run_operator(case.with_(h0=case.data["h0"].cpu()))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@WARPS
def test_the_second_device(draw: Draw) -> None:
    case = draw()
    weights = random_weights(case)
    expected = results(on_gpu(case), weights)
    actual = results(case.on("cuda:1"), weights)
    assert torch.cuda.current_device() == 0
    for name, value in actual.items():
        torch.testing.assert_close(value.cpu(), expected[name].cpu(), rtol=0, atol=1e-10)
