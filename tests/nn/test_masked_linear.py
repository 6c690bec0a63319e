"""The masked linear layer: its mask in checkpoints and copies, dtypes, compiled code."""

from __future__ import annotations

import copy
import io
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import fastltc

I, O = 9, 6  # noqa: E741


@pytest.fixture(autouse=True, params=[True, False], ids=["entries", "dense"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take one way and the other, whatever the sizes."""
    module = sys.modules["fastltc.ops.masked_linear"]
    for name in ("prefers_entries", "_remembered"):
        monkeypatch.setattr(module, name, lambda *_: request.param)


def make(density: float = 0.4, **options: object) -> fastltc.MaskedLinear:
    return fastltc.MaskedLinear(I, O, torch.rand(O, I) < density, **options).double()


def expected(layer: fastltc.MaskedLinear, x: Tensor) -> Tensor:
    return F.linear(x, layer.weight * layer.mask, layer.bias)


@pytest.mark.parametrize("shape", [(I,), (4, I), (2, 3, I), (0, I)])
@pytest.mark.parametrize("bias", [True, False])
def test_any_leading_shape(shape: tuple[int, ...], bias: bool) -> None:
    layer = make(bias=bias)
    x = torch.randn(shape).double()
    torch.testing.assert_close(layer(x), expected(layer, x))
    assert (layer.bias is not None) == bias


def test_training_keeps_weights_off_the_mask() -> None:
    layer = make()
    before = layer.weight.detach().clone()
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        layer(torch.randn(20, I).double()).square().sum().backward()
        optimizer.step()
    assert torch.equal(layer.weight[layer.mask == 0], before[layer.mask == 0])
    assert not torch.equal(layer.weight[layer.mask == 1], before[layer.mask == 1])


def test_the_initial_weights_are_those_of_a_linear_layer() -> None:
    torch.manual_seed(3)
    linear = torch.nn.Linear(I, O)
    torch.manual_seed(3)
    layer = fastltc.MaskedLinear(I, O, torch.ones(O, I))
    assert torch.equal(layer.weight, linear.weight)
    assert torch.equal(layer.bias, linear.bias)


def test_a_loaded_mask_counts() -> None:
    layer, other = make(), make(0.8)
    x = torch.randn(5, I).double()
    layer(x)
    buffer = io.BytesIO()
    torch.save(other.state_dict(), buffer)
    buffer.seek(0)
    layer.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(layer(x), other(x))
    layer.load_state_dict(make(0.1).state_dict(), assign=True)
    torch.testing.assert_close(layer(x), expected(layer, x))


def test_edited_masks_count() -> None:
    layer = make()
    x = torch.randn(5, I).double()
    layer.mask.copy_(1 - layer.mask)
    torch.testing.assert_close(layer(x), expected(layer, x))
    layer.mask.data[0] = 1
    layer.refresh_mask()
    torch.testing.assert_close(layer(x), expected(layer, x))
    twin = copy.deepcopy(layer)
    twin.mask.copy_(1 - twin.mask)
    torch.testing.assert_close(twin(x), expected(twin, x))
    torch.testing.assert_close(layer(x), expected(layer, x))


def test_dtypes_devices_and_functional_call() -> None:
    layer = make()
    x = torch.randn(5, I)
    half = copy.deepcopy(layer).to(torch.bfloat16)
    assert half(x.to(torch.bfloat16)).dtype == torch.bfloat16
    assert half.mask.dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert copy.deepcopy(layer).float()(x).dtype == torch.float32
    assert copy.deepcopy(layer).to("meta")(x.double().to("meta")).is_meta
    doubled = {"weight": layer.weight * 2, "mask": 1 - layer.mask}
    actual = torch.func.functional_call(layer, doubled, x.double())
    wanted = F.linear(x.double(), layer.weight * 2 * (1 - layer.mask), layer.bias)
    torch.testing.assert_close(actual, wanted)


def test_compiled_for_any_batch() -> None:
    layer = make()
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch in (3, 7):
        x = torch.randn(batch, I).double()
        torch.testing.assert_close(compiled(x), layer(x))


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match=r"mask: expected shape \[O, I\] = \[6, 9\], got \[9, 6\]"):
        fastltc.MaskedLinear(I, O, torch.ones(I, O))
    with pytest.raises(ValueError, match="mask: expected 0 or 1 everywhere, got 2"):
        fastltc.MaskedLinear(I, O, torch.full((O, I), 2))
    with pytest.raises(ValueError, match=r"input: expected shape \[..., I\] with I = 9, got \[4\]"):
        make()(torch.zeros(4))


def test_exported_for_any_batch() -> None:
    layer = make().eval()
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(layer, (torch.randn(4, I).double(),), dynamic_shapes=shapes)
    for batch in (2, 70):
        x = torch.randn(batch, I).double()
        torch.testing.assert_close(program.module()(x), layer(x))


def test_function_transforms() -> None:
    layer = make()
    x, tangent = torch.randn(3, I).double(), torch.randn(3, I).double()
    gradient = torch.func.grad(lambda x: layer(x).square().sum())(x)
    wanted = torch.func.grad(lambda x: expected(layer, x).square().sum())(x)
    torch.testing.assert_close(gradient, wanted)
    _, moved = torch.func.jvp(layer, (x,), (tangent,))
    torch.testing.assert_close(moved, F.linear(tangent, layer.weight * layer.mask))
    torch.testing.assert_close(torch.func.vmap(layer)(x), layer(x))


def test_the_mask_is_a_copy() -> None:
    mask = torch.ones(O, I)
    layer, other = fastltc.MaskedLinear(I, O, mask), fastltc.MaskedLinear(I, O, mask)
    layer.load_state_dict(make(0.3).float().state_dict())
    assert (mask == 1).all()
    assert (other.mask == 1).all()


def test_a_mask_made_in_inference_mode_is_compared() -> None:
    with torch.inference_mode():
        layer = make()
        x = torch.randn(3, I).double()
        layer(x)
        layer.mask.zero_()
        torch.testing.assert_close(layer(x), layer.bias.expand(3, O))
