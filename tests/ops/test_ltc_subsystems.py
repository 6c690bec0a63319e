"""The LTC operators under PyTorch's subsystems: fake tensors, autograd, autocast, tracing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fastltc.ops import ltc
from fastltc.ops.errors import check_has_kernels
from ltc_cases import (
    Case,
    assert_all_close,
    change_tensors,
    leaves_of,
    operator_arguments,
    random_case,
    random_weights,
    raw_arguments,
    run_operator,
    run_reference,
    with_gradients,
)

CASES = {
    "plain": {"h0": False, "timespans": None, "maps": ""},
    "everything": {"lengths": True, "timespans": "BTN", "time_major": True},
    "last step": {"return_sequences": False, "lengths": True},
    "mixed memory": {"memory": True, "lengths": True},
    "empty batch": {"batch": 0},
    "empty sequence": {"time": 0},
    "float32": {"dtype": torch.float32, "batch": 20},
}


@pytest.mark.parametrize("name", CASES)
def test_opcheck_of_the_forward(name: str) -> None:
    case = random_case(poison=False, **CASES[name])
    if case.lengths is not None:
        # opcheck compares the saved states too, which are not written behind the longest sample.
        case.lengths[0] = 5
        for tensor in case.data.values():
            tensor.nan_to_num_()
    torch.library.opcheck(
        torch.ops.fastltc.ltc_forward.default, raw_arguments(case, save_states=False)
    )
    torch.library.opcheck(
        torch.ops.fastltc.ltc_forward.default, leaves_of(raw_arguments(case, save_states=True))
    )


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("timespans_grad", [True, False])
def test_opcheck_of_the_backward(name: str, timespans_grad: bool) -> None:
    case = random_case(poison=False, **CASES[name])
    arguments = raw_arguments(case, save_states=True)
    output, hn, states = torch.ops.fastltc.ltc_forward(*arguments)
    grads = torch.randn_like(output), torch.randn_like(hn)
    torch.library.opcheck(
        torch.ops.fastltc.ltc_backward.default,
        (*grads, states, *arguments[:-1], timespans_grad),
    )


@pytest.mark.parametrize("name", CASES)
def test_meta_tensors_have_the_shapes_and_strides_of_real_ones(name: str) -> None:
    for save_states in (True, False):
        arguments = raw_arguments(random_case(**CASES[name]), save_states)
        meta = change_tensors(arguments, lambda t: t.to("meta"))
        real = torch.ops.fastltc.ltc_forward(*arguments)
        fake = torch.ops.fastltc.ltc_forward(*meta)
        for r, f in zip(real, fake, strict=True):
            assert f.is_meta
            assert (f.shape, f.stride(), f.dtype) == (r.shape, r.stride(), r.dtype)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("timespans_grad", [True, False])
def test_meta_gradients_have_the_shapes_and_strides_of_real_ones(
    name: str, timespans_grad: bool
) -> None:
    arguments = raw_arguments(random_case(**CASES[name]), save_states=True)
    output, hn, states = torch.ops.fastltc.ltc_forward(*arguments)
    arguments = (output, hn, states, *arguments[:-1], timespans_grad)
    meta = change_tensors(arguments, lambda t: t.to("meta"))
    *data, parameters, memory = torch.ops.fastltc.ltc_backward(*arguments)
    real = *data, *parameters, *memory
    *data, parameters, memory = torch.ops.fastltc.ltc_backward(*meta)
    for r, f in zip(real, (*data, *parameters, *memory), strict=True):
        assert f.is_meta
        assert (f.shape, f.stride(), f.dtype) == (r.shape, r.stride(), r.dtype)


@pytest.mark.parametrize("name", CASES)
def test_the_registered_gradients_are_those_of_the_function(name: str) -> None:
    case = random_case(**CASES[name])
    weights = random_weights(case)

    def registered(case: Case) -> tuple[Tensor, Tensor]:
        output, hn, states = torch.ops.fastltc.ltc_forward(*raw_arguments(case, True))
        assert not states.requires_grad
        return output, hn

    actual = with_gradients(registered, case, weights)
    expected = with_gradients(run_operator, case, weights)
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[key], expected[key]) for key in actual)


def second_order_losses() -> dict[str, Callable[[Case], Tensor]]:
    return {
        "function": lambda case: run_operator(case)[0].sum(),
        "operator": lambda case: torch.ops.fastltc.ltc_forward(*raw_arguments(case, True))[0].sum(),
    }


@pytest.mark.parametrize("kind", second_order_losses())
def test_a_second_derivative_is_refused_clearly(kind: str) -> None:
    case = random_case(poison=False).requiring_grad()
    x, w = case.data["x"], case.parameters["w"]
    loss = second_order_losses()[kind](case)
    (grad_x,) = torch.autograd.grad(loss, x, create_graph=True)
    (expected,) = torch.autograd.grad(run_reference(case)[0].sum(), x)
    assert_all_close({"first": grad_x.detach()}, {"first": expected})
    with pytest.raises(NotImplementedError, match="second derivative of the LTC layer"):
        torch.autograd.grad(grad_x.square().sum(), w)


def test_gradients_without_saved_states_are_refused_clearly() -> None:
    case = random_case().requiring_grad()
    output, _, _ = torch.ops.fastltc.ltc_forward(*raw_arguments(case, save_states=False))
    with pytest.raises(RuntimeError, match="save_states=True"):
        output.sum().backward()


def test_gradients_only_where_they_are_asked_for() -> None:
    case = random_case()
    case.parameters["mu"].requires_grad_()
    output, _ = run_operator(case)
    output.sum().backward()
    assert case.parameters["mu"].grad is not None
    assert case.data["x"].grad is None
    with torch.no_grad():
        assert not run_operator(case)[0].requires_grad
    case.parameters["mu"].requires_grad_(False)
    assert not run_operator(case)[0].requires_grad


def test_no_states_are_kept_where_no_gradient_is_asked_for() -> None:
    case = random_case(64, 50, neurons=64, density=0.1, dtype=torch.float32).requiring_grad()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()), lambda t: t):
        with torch.no_grad():
            run_operator(case)
        assert not kept
        run_operator(case)
        assert max(kept) == (50 * 6 + 1) * 64 * 64


def test_tensors_changed_before_the_backward_are_noticed() -> None:
    case = random_case(poison=False).requiring_grad()
    output, _ = run_operator(case)
    with torch.no_grad():
        case.parameters["w"].add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_backward_twice_with_a_retained_graph() -> None:
    case = random_case(poison=False).requiring_grad()
    output, _ = run_operator(case)
    x = case.data["x"]
    first = torch.autograd.grad(output.sum(), x, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(output.sum(), x)[0])


def test_activation_checkpointing() -> None:
    case = random_case(poison=False)
    weights = random_weights(case)

    def checkpointed(case: Case) -> tuple[Tensor, Tensor]:
        return torch.utils.checkpoint.checkpoint(run_operator, case, use_reentrant=False)

    import torch.utils.checkpoint

    actual = with_gradients(checkpointed, case, weights)
    assert_all_close(actual, with_gradients(run_operator, case, weights), 0.0)


def test_torch_func_grad() -> None:
    case = random_case(poison=False)

    def loss(x: Tensor, w: Tensor) -> Tensor:
        output, hn = run_operator(case.with_(x=x, w=w))
        return output.square().sum() + hn.sum()

    actual = torch.func.grad(loss, argnums=(0, 1))(case.data["x"], case.parameters["w"])
    leaves = case.requiring_grad()
    expected = torch.autograd.grad(
        loss(leaves.data["x"], leaves.parameters["w"]),
        (leaves.data["x"], leaves.parameters["w"]),
    )
    assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("which", ["data", "parameters", "both"])
def test_half_types_are_stored_and_computed_in_float32(half: torch.dtype, which: str) -> None:
    case = random_case(5, lengths=True, dtype=torch.float32)
    if which in ("data", "both"):
        case.data = {k: None if t is None else t.to(half) for k, t in case.data.items()}
    if which in ("parameters", "both"):
        case.parameters = {k: None if t is None else t.to(half) for k, t in case.parameters.items()}
    weights = random_weights(case.to(torch.float32))
    stored = case.data["x"].dtype
    actual = with_gradients(run_operator, case, [w.to(stored) for w in weights])
    expected = with_gradients(
        run_operator, case.to(torch.float32), [w.to(stored).float() for w in weights]
    )
    for name, wanted in expected.items():
        leaf = case.leaves.get(name.removeprefix("grad of "))
        dtype = stored if leaf is None else leaf.dtype
        assert actual[name].dtype == dtype, name
        assert torch.equal(actual[name], wanted.to(dtype)), name


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["function", "operator"])
def test_autocast_computes_and_returns_float32(half: torch.dtype, kind: str) -> None:
    case = random_case(5, dtype=torch.float32)

    def run(case: Case) -> tuple[Tensor, Tensor]:
        if kind == "function":
            return run_operator(case)
        return torch.ops.fastltc.ltc_forward(*raw_arguments(case, True))[:2]

    def cast(case: Case) -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", half):
            return run(case)

    weights = random_weights(case)
    assert_all_close(with_gradients(cast, case, weights), with_gradients(run, case, weights), 0.0)

    mixed = case.with_(x=case.data["x"].to(half), h0=case.data["h0"].to(half))
    actual = with_gradients(cast, mixed, weights)
    expected = with_gradients(run, mixed.to(torch.float32), weights)
    for name, wanted in expected.items():
        dtype = half if name in ("grad of x", "grad of h0") else torch.float32
        assert actual[name].dtype == dtype, name
        assert torch.equal(actual[name], wanted.to(dtype)), name


def test_autocast_leaves_float64_alone() -> None:
    case = random_case()
    with torch.autocast("cpu", torch.bfloat16):
        output, _ = run_operator(case)
    assert output.dtype == torch.float64
    assert torch.equal(output, run_operator(case)[0])


@pytest.fixture
def compiler_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Compile anew: a cached graph would hide what the fake kernels say now."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.usefixtures("compiler_cache")
def test_compiled_with_any_batch_and_length(backend: str) -> None:
    options = random_case().options
    compiled = torch.compile(ltc, fullgraph=True, dynamic=True, backend=backend)

    def run(case: Case) -> tuple[Tensor, Tensor]:
        return compiled(*operator_arguments(case), **options)

    for batch, time in ((3, 5), (7, 2), (2, 11)):
        case = random_case(batch, time, lengths=True)
        weights = random_weights(case)
        actual = with_gradients(run, case, weights)
        assert_all_close(actual, with_gradients(run_operator, case, weights), 1e-13)


def refused(case: Case, error: type[Exception], match: str) -> None:
    """Check that the operator refuses, and that the function says why in its own words."""
    with pytest.raises(RuntimeError):
        torch.ops.fastltc.ltc_forward(*raw_arguments(case, save_states=False))
    with pytest.raises(error, match=match):
        run_operator(case)


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "x of two axes": ({"x": torch.zeros(3, 4).double()}, ValueError, r"x: .*\[B, T, I\]"),
    "x with other features": (
        {"x": torch.zeros(3, 5, 9).double()},
        ValueError,
        r"sensory_sigma: expected shape \[I, N\] = \[9, 7\], got \[4, 7\]",
    ),
    "integer x": ({"x": torch.zeros(3, 5, 4, dtype=torch.int64)}, TypeError, "x: .*int64"),
    "h0 of another batch": (
        {"h0": torch.zeros(1, 7).double()},
        ValueError,
        r"h0: expected shape \[B, N\] = \[3, 7\], got \[1, 7\]",
    ),
    "h0 of another dtype": ({"h0": torch.zeros(3, 7)}, TypeError, "h0: .*float64.*float32"),
    "gleak of another size": (
        {"vleak": torch.zeros(6).double()},
        ValueError,
        r"vleak: expected shape \[N\] = \[7\], got \[6\]",
    ),
    "w of another shape": (
        {"w": torch.zeros(7, 6).double()},
        ValueError,
        r"w: expected shape \[N, N\] = \[7, 7\], got \[7, 6\]",
    ),
    "output_b of another size": (
        {"output_b": torch.zeros(3).double()},
        ValueError,
        r"output_b: expected shape \[M\] = \[2\], got \[3\]",
    ),
    "mu of another dtype": ({"mu": torch.zeros(7, 7)}, TypeError, "mu: .*float64.*float32"),
    "timespans per step only": (
        {"timespans": torch.ones(5).double()},
        ValueError,
        r"timespans: expected shape \[B, T\] = \[3, 5\], got \[5\]",
    ),
    "timespans of other neurons": (
        {"timespans": torch.ones(3, 5, 6).double()},
        ValueError,
        r"timespans: expected shape \[B, T, N\] = \[3, 5, 7\], got \[3, 5, 6\]",
    ),
    "a negative time step": (
        {"timespans": -torch.ones(3, 5).double()},
        ValueError,
        r"timespans: .*got -1.0 at \[0, 0\] \(15 of 15",
    ),
    "a time step that is not a number": (
        {"timespans": torch.tensor([[1.0, torch.nan, 1, 1, 1]]).double().expand(3, 5)},
        ValueError,
        r"timespans: .*got nan at \[0, 1\]",
    ),
    "an infinite time step": (
        {"timespans": torch.full((3, 5, 7), torch.inf).double()},
        ValueError,
        r"timespans: .*got inf at \[0, 0, 0\]",
    ),
    "too long": (
        {"lengths": torch.tensor([5, 6, 0])},
        ValueError,
        "lengths: expected values of 0 to T = 5, got 0 to 6",
    ),
    "a negative length": ({"lengths": torch.tensor([5, -1, 0])}, ValueError, "lengths: .*-1"),
    "lengths of another batch": (
        {"lengths": torch.tensor([5, 5])},
        ValueError,
        r"lengths: expected shape \[B\] = \[3\], got \[2\]",
    ),
    "float lengths": ({"lengths": torch.ones(3)}, TypeError, "lengths: expected int64, got .*32"),
    "more motors than neurons": ({"output_size": 8}, ValueError, "output_size: .* 7, got 8"),
    "no unfold": ({"ode_unfolds": 0}, ValueError, "ode_unfolds: expected 1 or more, got 0"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("needs_grad", [False, True])
def test_bad_arguments(name: str, needs_grad: bool) -> None:
    changes, error, match = BAD[name]
    case = random_case(poison=False, maps="iIO" if "output_size" in changes else "iIoO")
    if needs_grad:
        case.parameters["vleak"].requires_grad_()
    refused(case.with_(**changes), error, match)


def test_bad_synapse_lists() -> None:
    case = random_case(poison=False, density=1.0)
    *front, synapses, sensory_synapses = operator_arguments(case)

    def call(synapses: Tensor, sensory_synapses: Tensor) -> None:
        ltc(*front, synapses, sensory_synapses, **case.options)

    with pytest.raises(TypeError, match="synapses: expected the int32 list"):
        call(synapses.long(), sensory_synapses)
    for broken in (synapses[:3], synapses[:-1], synapses + 1, synapses.flip(0), synapses * -1):
        with pytest.raises(RuntimeError, match=r"fastltc::ltc_forward: synapses"):
            call(broken, sensory_synapses)
        with pytest.raises(RuntimeError, match=r"fastltc::ltc_forward: sensory_synapses"):
            call(synapses, broken)


def test_tensors_on_another_device_say_what_to_do() -> None:
    case = random_case(poison=False)
    meta_x = case.with_(x=case.data["x"].to("meta"))
    with pytest.raises(TypeError, match="expected a tensor on meta"):
        run_operator(meta_x)
    with pytest.raises(NotImplementedError, match=r"no meta kernels.*FASTLTC_CUDA"):
        check_has_kernels("ltc_forward", meta_x.data["x"])
