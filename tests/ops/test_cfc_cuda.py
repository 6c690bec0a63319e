"""The CUDA kernels of the CfC operators against those of the CPU, and streams, graphs, devices."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from cfc_cases import (
    CfcCase,
    operator_arguments,
    random_cfc,
    random_weights,
    raw_arguments,
    run_operator,
)
from fastltc.ops import cfc
from ltc_cases import with_gradients

pytestmark = pytest.mark.cuda

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-3}
# One for each plan and more: a warp with weights of each width, a block with its weights in shared
# memory and without, tiles.
SIZES: dict[str, dict[str, Any]] = {
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
    "no samples": {"batch": 0, "time": 3},
    "no steps": {"batch": 3, "time": 0},
}
PLANS = ["warp", "wired block", "backbone", "tiles"]


def on(case: CfcCase, device: str = "cuda") -> CfcCase:
    moved = case.map(lambda t: t.to(device))
    return replace(
        moved,
        masks=[m.to(device) for m in case.masks],
        dropout=None if case.dropout is None else case.dropout.to(device),
        lengths=None if case.lengths is None else case.lengths.to(device),
    )


def results(case: CfcCase, weights: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    device, dtype = case.data["x"].device, case.data["x"].dtype
    return with_gradients(run_operator, case, tuple(w.to(device, dtype) for w in weights))


def agree(case: CfcCase, dtype: torch.dtype) -> None:
    weights = random_weights(case)
    expected = with_gradients(run_operator, case, weights)
    actual = results(on(case.to(dtype)), weights)
    assert actual.keys() == expected.keys()
    for name, value in actual.items():
        scale = max(1.0, expected[name].abs().max().item()) if value.numel() else 1.0
        torch.testing.assert_close(
            value.cpu().double(), expected[name], rtol=0, atol=TOLERANCE[dtype] * scale, msg=name
        )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("mode", ["default", "no_gate", "pure"])
@pytest.mark.parametrize("size", SIZES)
def test_values_of_every_plan(size: str, mode: str, dtype: torch.dtype) -> None:
    agree(random_cfc(**SIZES[size], mode=mode), dtype)


@pytest.mark.parametrize("size", PLANS)
@pytest.mark.parametrize(
    "options",
    [
        {"timespans": None},
        {"timespans": "BTN"},
        {"timespans": "BTN", "mode": "pure"},
        {"lengths": True},
        {"lengths": True, "return_sequences": False},
        {"time_major": True},
        {"h0": False},
        {"memory": True},
        {"memory": True, "lengths": True, "mode": "pure"},
    ],
    ids=lambda options: " ".join(f"{k}={v}" for k, v in options.items()),
)
def test_values_of_every_option(size: str, options: dict[str, Any]) -> None:
    agree(random_cfc(**{**SIZES[size], "batch": 4, **options}), torch.float64)


@pytest.mark.parametrize("activation", ["lecun_tanh", "silu", "relu", "tanh", "gelu"])
def test_values_of_every_activation(activation: str) -> None:
    agree(random_cfc(**SIZES["backbone"], activation=activation), torch.float64)


def test_strided_inputs() -> None:
    case = random_cfc(batch=6, time=5)
    weights = random_weights(case)
    expected = results(on(case), weights)
    x = on(case).data["x"]
    strided = on(case).with_(x=x.transpose(0, 1).contiguous().transpose(0, 1))
    actual = results(strided, weights)
    for name, value in actual.items():
        assert torch.equal(value, expected[name]), name


def test_half_inputs() -> None:
    case = on(random_cfc(dtype=torch.float32, poison=False))
    expected, _ = run_operator(case)
    output, hn = run_operator(case.with_(x=case.data["x"].half()))
    assert output.dtype == hn.dtype == torch.float16
    torch.testing.assert_close(output.float(), expected, rtol=0, atol=5e-3)


@pytest.mark.parametrize("options", [{}, {"mode": "pure"}, {"memory": True}])
@pytest.mark.parametrize("size", PLANS)
def test_gradcheck(size: str, options: dict[str, Any]) -> None:
    sizes = {**SIZES[size], "batch": 2, "time": 2, "inputs": 2, **options}
    case = on(random_cfc(**sizes, poison=False))
    # Away from 0, which has no lower neighbour.
    case = case.with_(timespans=case.data["timespans"] + 0.5).requiring_grad()
    names = list(case.leaves)

    def run(*leaves: Tensor) -> tuple[Tensor, Tensor]:
        changed = dict(zip(names, leaves, strict=True))
        return run_operator(
            replace(
                case,
                data={k: changed[k] for k in case.data},
                parameters={k: changed[k] for k in case.parameters},
                memory={k: changed[k] for k in case.memory},
            )
        )

    assert torch.autograd.gradcheck(run, list(case.leaves.values()), fast_mode=True)


@pytest.mark.parametrize("size", PLANS)
def test_opcheck(size: str) -> None:
    torch.library.opcheck(
        torch.ops.fastltc.cfc_forward.default,
        raw_arguments(on(random_cfc(**SIZES[size], poison=False)), True),
    )


@pytest.mark.parametrize("size", PLANS)
def test_the_same_call_gives_the_same_bits(size: str) -> None:
    case = random_cfc(**{**SIZES[size], "batch": 300}, dtype=torch.float32)
    weights = random_weights(case)
    first = results(on(case), weights)
    for _ in range(5):
        again = results(on(case), weights)
        for name, value in again.items():
            assert torch.equal(value, first[name]), name


@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize("size", PLANS)
def test_nothing_waits_for_the_device(size: str, memory: bool) -> None:
    case = on(random_cfc(**SIZES[size], dtype=torch.float32, lengths=True, memory=memory))
    case = case.requiring_grad()
    torch.cuda.set_sync_debug_mode("error")
    try:
        output, hn = run_operator(case)
        torch.autograd.backward([output, hn], [torch.ones_like(output), torch.ones_like(hn)])
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("size", PLANS)
def test_a_captured_graph_gives_what_a_call_gives(size: str) -> None:
    case = on(random_cfc(**SIZES[size], dtype=torch.float32)).requiring_grad()
    leaves = [leaf for leaf in case.leaves.values() if leaf is not None]

    def step() -> tuple[Tensor, ...]:
        output, hn = run_operator(case)
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
    case = on(random_cfc(**SIZES["warp"], dtype=torch.float32))
    expected = [t.clone() for t in run_operator(case)]
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in range(2)]
    outcomes = []
    for _ in range(20):
        for stream in streams:
            with torch.cuda.stream(stream):
                outcomes.append(run_operator(case))
    torch.cuda.synchronize()
    for outcome in outcomes:
        assert all(torch.equal(got, wanted) for got, wanted in zip(outcome, expected, strict=True))


def test_reduce_overhead() -> None:
    case = on(random_cfc(**SIZES["warp"], dtype=torch.float32, poison=False))
    _, *rest = operator_arguments(case)

    @torch.compile(mode="reduce-overhead", fullgraph=True)
    def compiled(x: Tensor) -> Tensor:
        return cfc(x, *rest, **case.options)[0]

    x = case.data["x"]
    expected = cfc(x, *rest, **case.options)[0]
    for _ in range(3):
        assert torch.equal(compiled(x), expected)


def test_tensors_of_another_device_are_refused() -> None:
    case = on(random_cfc(poison=False))
    with pytest.raises((RuntimeError, TypeError), match="cuda"):
        run_operator(case.with_(h0=case.data["h0"].cpu()))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_the_second_device() -> None:
    case = random_cfc(**SIZES["warp"])
    weights = random_weights(case)
    expected = results(on(case), weights)
    actual = results(on(case, "cuda:1"), weights)
    assert torch.cuda.current_device() == 0
    for name, value in actual.items():
        torch.testing.assert_close(value.cpu(), expected[name].cpu(), rtol=0, atol=1e-10)
