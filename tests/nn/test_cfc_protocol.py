"""What nn.Module promises of CfC: moving, copying, saving, replacing parameters, tracing."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import ncps.torch
import pytest
import torch
from ncps.wirings import AutoNCP, Random
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.export import Dim, export
from torch.func import functional_call

from fastltc import CfC, CfCCell, WiredCfCCell

I, N = 4, 12  # noqa: E741

KINDS: dict[str, dict[str, Any]] = {
    "wired": {"proj_size": 3},
    "pure": {"mode": "pure"},
    "mixed": {"mixed_memory": True},
    "plain": {"backbone_layers": 2, "backbone_units": 6, "proj_size": 3},
    "plain pure": {"backbone_units": 6, "mode": "pure", "activation": "gelu"},
}


def new(kind: str) -> CfC:
    return CfC(I, N if kind.startswith("plain") else AutoNCP(N, 2), **KINDS[kind])


def make(kind: str) -> tuple[CfC, Tensor]:
    return new(kind), torch.randn(3, 5, I)


def other_state(layer: nn.Module) -> dict[str, Tensor]:
    """Return the state of a layer with other masks and other parameters."""
    state = {name: value + 0.1 for name, value in layer.state_dict().items()}
    for name, value in state.items():
        if name.endswith("_mask"):
            state[name] = (torch.rand_like(value) < 0.5).to(value)
    return state


def with_state(kind: str, state: dict[str, Tensor]) -> CfC:
    layer = new(kind)
    layer.load_state_dict(state)
    return layer


@pytest.mark.parametrize("kind", KINDS)
def test_deepcopy_and_pickle(kind: str, tmp_path: Any) -> None:
    layer, x = make(kind)
    expected = layer(x)[0]
    state = other_state(layer)
    torch.save(layer, tmp_path / "layer.pt")
    loaded = torch.load(tmp_path / "layer.pt", weights_only=False)
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), loaded):
        assert torch.equal(copied(x)[0], expected)
        copied.load_state_dict(state)
        assert torch.equal(copied(x)[0], with_state(kind, state)(x)[0])
        assert torch.equal(layer(x)[0], expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_moving_to_another_dtype(kind: str, dtype: torch.dtype) -> None:
    layer, x = make(kind)
    layer(x)
    layer.to(dtype)
    assert all(p.dtype == dtype for p in layer.parameters())
    x = x.to(dtype)
    output, hn = layer(x)
    assert output.dtype == dtype
    assert all(h.dtype == dtype for h in (hn if layer.use_mixed else (hn,)))
    assert layer(x, hn)[0].dtype == dtype
    exact = copy.deepcopy(layer).double()
    error = (output.double() - exact(x.double())[0]).abs().max()
    # The liquid cell computes in float32; the memory cell and the projection in the dtype itself.
    assert error <= 8 * torch.finfo(dtype).eps * exact(x.double())[0].abs().max().clamp(min=1)
    output.float().sum().backward()
    assert all(p.grad.dtype == dtype for p in layer.parameters() if p.requires_grad)


@pytest.mark.parametrize("kind", KINDS)
def test_half_and_float32_mix(kind: str) -> None:
    layer, x = make(kind)
    output, hn = layer(x.bfloat16())
    assert output.dtype == torch.bfloat16
    assert (hn[0] if layer.use_mixed else hn).dtype == torch.bfloat16
    torch.testing.assert_close(
        output, layer(x.bfloat16().float())[0].bfloat16(), rtol=0.02, atol=0.02
    )
    assert layer.bfloat16()(x)[0].dtype == torch.float32


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(kind: str, dtype: torch.dtype) -> None:
    layer, x = make(kind)
    head = nn.Linear(I, I)
    with torch.autocast("cpu", dtype):
        features = head(x)
        output, hn = layer(features)
        layer(features, hn)
    # The projection is an nn.Linear, which autocast runs in half.
    assert output.dtype == (torch.float32 if layer.proj_size is None else dtype)
    assert (hn[0] if layer.use_mixed else hn).dtype == torch.float32
    expected, _ = layer(features.float())
    if layer.use_mixed or layer.proj_size is not None:
        torch.testing.assert_close(output.float(), expected, rtol=0.02, atol=0.02)
    else:
        assert torch.equal(output, expected)
    output.float().sum().backward()
    assert head.weight.grad.dtype == torch.float32
    assert torch.isfinite(head.weight.grad).all()


@pytest.mark.parametrize("kind", KINDS)
def test_assigning_a_state_dict(kind: str) -> None:
    layer, x = make(kind)
    layer(x)
    state = other_state(layer)
    layer.load_state_dict(state, assign=True)
    name = next(name for name in state if name.endswith("ff1.weight"))
    assert layer.get_parameter(name).data_ptr() == state[name].data_ptr()
    assert torch.equal(layer(x)[0], with_state(kind, state)(x)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_making_a_layer_without_memory(kind: str) -> None:
    layer, x = make(kind)
    state = other_state(layer)
    expected = with_state(kind, state)(x)[0]
    with torch.device("meta"):
        empty = new(kind)
    assert all(p.is_meta for p in empty.parameters())
    assigned = copy.deepcopy(empty)
    assigned.load_state_dict(state, assign=True)
    assert torch.equal(assigned(x)[0], expected)
    empty.to_empty(device="cpu")
    empty.load_state_dict(state)
    assert torch.equal(empty(x)[0], expected)


def test_shapes_on_the_meta_device() -> None:
    for kind in ("wired", "plain"):
        layer, x = make(kind)
        output, hn = layer.to("meta")(x.to("meta"))
        assert output.is_meta
        assert output.shape == (3, 5, 3)
        assert hn.shape == (3, N)


@pytest.mark.parametrize("kind", KINDS)
def test_functional_call(kind: str) -> None:
    layer, x = make(kind)
    before = layer(x)[0]
    state = other_state(layer)
    with torch.no_grad():
        expected = with_state(kind, state)(x)[0]
        assert torch.equal(functional_call(layer, state, (x,))[0], expected)
    name = next(name for name in state if name.endswith("ff1.weight"))
    assert not torch.equal(functional_call(layer, {name: state[name]}, (x,))[0], before)
    assert torch.equal(layer(x)[0], before)
    leaf = state[name].clone().requires_grad_()
    functional_call(layer, {name: leaf}, (x,))[0].sum().backward()
    assert leaf.grad is not None


@pytest.mark.parametrize("kind", KINDS)
def test_torch_func_grad_with_all_parameters(kind: str) -> None:
    layer, x = make(kind)

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(layer, parameters, (x,))[0].square().sum()

    parameters = dict(layer.named_parameters())
    grads = torch.func.grad(loss)({n: p.detach() for n, p in parameters.items()}, x)
    layer(x)[0].square().sum().backward()
    for name, parameter in parameters.items():
        if parameter.requires_grad:
            torch.testing.assert_close(grads[name], parameter.grad)
        else:
            assert (grads[name] == 0).all(), "masks are not differentiated"


def test_frozen_parameters_and_masks_that_were_unfrozen_get_no_gradient() -> None:
    layer, x = make("wired")
    cell = layer.rnn_cell.layer_0
    cell.ff1.weight.requires_grad_(False)
    layer(x)[0].sum().backward()
    assert cell.ff1.weight.grad is None
    assert cell.ff2.weight.grad is not None
    assert cell.sparsity_mask.grad is None
    layer.requires_grad_()
    layer(x)[0].sum().backward()
    assert cell.sparsity_mask.grad is None
    assert cell.ff1.weight.grad is not None


@pytest.mark.parametrize("kind", KINDS)
def test_inference_mode(kind: str) -> None:
    layer, x = make(kind)
    layer.eval()
    with torch.inference_mode():
        output, hn = layer(x)
        layer(x, hn)
        inner = new(kind)
        assert inner(x)[0].shape == output.shape
    assert output.is_inference()
    with torch.no_grad():
        assert torch.equal(output, layer(x)[0])
    layer(x)[0].sum().backward()


@pytest.mark.parametrize("kind", KINDS)
def test_state_carried_from_call_to_call_is_one_sequence(kind: str) -> None:
    layer, x = make(kind)
    layer.double()
    x = x.double()
    whole, last = layer(x)
    hn, pieces = None, []
    for t in range(x.shape[1]):
        output, hn = layer(x[:, t : t + 1], hn)
        pieces.append(output)
    torch.testing.assert_close(torch.cat(pieces, 1), whole)
    torch.testing.assert_close(hn, last)


def test_hooks_see_the_layer_and_its_projection() -> None:
    layer, x = make("wired")
    seen = []
    layer.register_forward_hook(lambda module, args, result: seen.append(result[0].shape))
    layer.fc.register_forward_hook(lambda module, args, result: seen.append(args[0].shape))
    layer(x)
    assert seen == [*[(3, 2)] * 5, (3, 5, 3)], "the projection at each step, as in ncps"


def test_parameters_off_the_mask_do_not_matter() -> None:
    layer, x = CfC(I, Random(N, N, sparsity_level=0.6)), torch.randn(3, 5, I)
    expected = layer(x)[0]
    expected.sum().backward()
    cell = layer.rnn_cell.layer_0
    expected_grad = cell.ff1.weight.grad.clone()
    layer.zero_grad()
    with torch.no_grad():
        cell.ff1.weight[cell.sparsity_mask == 0] = torch.nan
        cell.ff2.weight[cell.sparsity_mask == 0] = torch.inf
    output = layer(x)[0]
    assert torch.equal(output, expected)
    output.sum().backward()
    assert torch.equal(cell.ff1.weight.grad, expected_grad)
    assert (cell.ff1.weight.grad[cell.sparsity_mask == 0] == 0).all()


@pytest.fixture
def compiler_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Compile anew: a cached graph would hide what the fake kernels say now."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()


def gradients(module: nn.Module, run: Any, *data: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    leaves = [d.detach().clone().requires_grad_() for d in data]
    outputs = list(run(*leaves))
    loss = sum(o.square().sum() for o in outputs)
    parameters = [p for p in module.parameters() if p.requires_grad]
    return [o.detach() for o in outputs], list(torch.autograd.grad(loss, leaves + parameters))


def check(actual: Any, expected: Any) -> None:
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", ["inductor", "aot_eager"])
@pytest.mark.parametrize("kind", ["wired", "plain", "plain pure"])
@pytest.mark.usefixtures("compiler_cache")
def test_compiled_layer_with_any_batch_and_length(kind: str, backend: str) -> None:
    layer = new(kind).double()
    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend=counter)
    compiled_graphs = []
    for batch, time in ((3, 5), (2, 7), (6, 4)):
        x, h0 = torch.randn(batch, time, I).double(), torch.randn(batch, N).double()
        timespans = torch.rand(batch, time).double()
        actual = gradients(layer, compiled, x, h0, timespans)
        expected = gradients(layer, layer, x, h0, timespans)
        check(actual[0], expected[0])
        check(actual[1], expected[1])
        compiled_graphs.append(counter.frame_count)
    assert compiled_graphs[0] == compiled_graphs[-1], "compiled again for another size"


@pytest.mark.parametrize("form", ["lengths", "float", "unbatched", "last step", "mixed memory"])
@pytest.mark.usefixtures("compiler_cache")
def test_compiled_forms_of_a_call(form: str) -> None:
    options = {
        "last step": {"return_sequences": False},
        "mixed memory": {"mixed_memory": True},
    }.get(form, {})
    layer = CfC(I, AutoNCP(N, 2), proj_size=3, **options).double()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.randn(3, 5, I).double()
    arguments: dict[str, dict[str, Any]] = {
        "lengths": {"lengths": torch.tensor([5, 0, 2])},
        "float": {"timespans": 0.25},
    }
    x = x[0] if form == "unbatched" else x
    with torch.set_grad_enabled(form != "float"):
        actual, actual_hn = compiled(x, **arguments.get(form, {}))
        expected, expected_hn = layer(x, **arguments.get(form, {}))
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(actual_hn, expected_hn, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("compiler_cache")
def test_compiled_cells() -> None:
    for cell in (WiredCfCCell(I, AutoNCP(N, 2)), CfCCell(I, N, backbone_units=6)):
        cell.double()
        compiled = torch.compile(cell, fullgraph=True, backend="aot_eager")
        x, h, dt = torch.randn(3, I).double(), torch.randn(3, N).double(), torch.rand(3, 1).double()
        actual, expected = gradients(cell, compiled, x, h, dt), gradients(cell, cell, x, h, dt)
        check(actual[0], expected[0])
        check(actual[1], expected[1])


@pytest.mark.usefixtures("compiler_cache")
def test_compiled_dropout_is_drawn_anew() -> None:
    layer = CfC(I, N, backbone_layers=2, backbone_units=6, backbone_dropout=0.5)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.randn(3, 5, I)
    assert not torch.equal(compiled(x)[0], compiled(x)[0])
    layer.eval()
    assert torch.equal(compiled(x)[0], layer(x)[0])


@pytest.mark.usefixtures("compiler_cache")
def test_compiled_code_follows_a_loaded_checkpoint() -> None:
    layer = CfC(I, Random(N, N, sparsity_level=0.5)).double()
    other = CfC(I, Random(N, N, sparsity_level=0.3, random_seed=5)).double()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 3, I).double()
    check([compiled(x)[0]], [layer(x)[0]])
    layer.load_state_dict(other.state_dict())
    check([compiled(x)[0]], [other(x)[0]])


@pytest.mark.usefixtures("compiler_cache")
def test_negative_time_steps_in_compiled_code() -> None:
    compiled = torch.compile(CfC(I, AutoNCP(N, 2)), fullgraph=True, backend="aot_eager")
    with pytest.raises(RuntimeError, match=r"timespans: expected finite time steps of 0 or more, got -1"):
        compiled(torch.randn(2, 3, I), timespans=-torch.ones(2, 3))


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("kind", ["wired", "plain"])
@pytest.mark.usefixtures("compiler_cache")
def test_export_with_any_batch_and_length(kind: str, strict: bool, tmp_path: Any) -> None:
    layer = new(kind).double().eval()
    example = torch.randn(2, 6, I).double(), torch.randn(2, N).double(), torch.rand(2, 6).double()
    batch, time = Dim("batch"), Dim("time")
    shapes = {0: batch, 1: time}, {0: batch}, {0: batch, 1: time}
    with torch.no_grad():
        program = export(layer, example, dynamic_shapes=shapes, strict=strict)
    torch.export.save(program, tmp_path / "layer.pt2")
    loaded = torch.export.load(tmp_path / "layer.pt2").module()
    for b, t in ((3, 9), (1, 2), (5, 32)):
        x, h0, dt = torch.randn(b, t, I), torch.randn(b, N), torch.rand(b, t)
        arguments = x.double(), h0.double(), dt.double()
        check(loaded(*arguments), layer(*arguments))


@pytest.mark.usefixtures("compiler_cache")
def test_an_exported_program_can_be_trained() -> None:
    layer = new("wired").double()
    example = (torch.randn(2, 6, I).double(),)
    exported = export(layer, example, dynamic_shapes=({1: Dim("time")},)).module()
    x = torch.randn(2, 9, I).double()
    actual, expected = gradients(exported, exported, x), gradients(layer, layer, x)
    check(actual[0], expected[0])
    check([actual[1][0]], [expected[1][0]])
    named = [n for n, p in exported.named_parameters() if p.requires_grad]
    grads = dict(zip(named, actual[1][1:], strict=True))
    wanted = [n for n, p in layer.named_parameters() if p.requires_grad]
    for name, gradient in zip(wanted, expected[1][1:], strict=True):
        check([grads[name]], [gradient])


@pytest.mark.usefixtures("compiler_cache")
def test_export_with_mixed_memory() -> None:
    layer = new("mixed").double()
    x = torch.randn(2, 4, I).double()
    with torch.no_grad():
        program = export(layer, (x,), dynamic_shapes=({0: Dim("batch")},))
    x = torch.randn(5, 4, I).double()
    check([program.module()(x)[0]], [layer(x)[0]])


def test_cells_and_layers_of_ncps_and_fastltc_stand_side_by_side() -> None:
    ours, theirs = CfCCell(I, N), ncps.torch.CfCCell(I, N)
    theirs.load_state_dict(ours.state_dict())
    x, h = torch.randn(3, I), torch.randn(3, N)
    torch.testing.assert_close(ours(x, h, 1.0), theirs(x, h, 1.0))
