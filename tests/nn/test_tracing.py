"""torch.compile and torch.export of the modules."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from ncps.wirings import AutoNCP, Random
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.export import Dim, export

import fastltc
from fastltc import LTC, CfC, CfCCell, LTCCell, MaskedLinear, WiredCfCCell
from layers.modules import KINDS, Kind, over_kinds, wired_kinds

I, N = 4, 12  # noqa: E741

pytestmark = pytest.mark.usefixtures("compiler_cache")


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
@pytest.mark.parametrize(
    ("kind", "batch_first"),
    [
        ("LTC", True),
        ("LTC", False),
        ("LTC, mixed", True),
        ("LTC, mixed", False),
        ("CfC, wired", True),
        ("CfC, plain", True),
        ("CfC, plain pure", True),
    ],
)
def test_compiled_layer_with_any_batch_and_length(
    kind: str, batch_first: bool, backend: str
) -> None:
    layer = KINDS[kind](I, N, batch_first=batch_first).double()

    def run(call: Any) -> Any:
        def outputs(x: Tensor, h0: Tensor, timespans: Tensor) -> list[Tensor]:
            output, hn = call(x, (h0, h0 * 2) if layer.use_mixed else h0, timespans)
            return [output, *hn] if layer.use_mixed else [output, hn]

        return outputs

    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend=counter)
    compiled_graphs = []
    for batch, time in ((3, 5), (2, 7), (6, 4)):
        axes = (batch, time) if batch_first else (time, batch)
        x, h0 = torch.randn(*axes, I).double(), torch.randn(batch, N).double()
        timespans = torch.rand(axes).double()
        actual = gradients(layer, run(compiled), x, h0, timespans)
        expected = gradients(layer, run(layer), x, h0, timespans)
        check(actual[0], expected[0])
        check(actual[1], expected[1])
        compiled_graphs.append(counter.frame_count)
    assert compiled_graphs[0] == compiled_graphs[-1], "compiled again for another size"


def test_compiled_without_gradients() -> None:
    layer = LTC(I, AutoNCP(N, 2))
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        x = torch.randn(2, 3, I)
        assert torch.equal(compiled(x)[0], layer(x)[0])


FORMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # options and arguments
    "lengths": ({}, {"lengths": torch.tensor([5, 0, 2])}),
    "float": ({}, {"timespans": 0.25}),
    "unbatched": ({}, {}),
    "last step": ({"return_sequences": False}, {}),
    "mixed memory": ({"mixed_memory": True}, {}),
}


@pytest.mark.parametrize("form", FORMS)
@wired_kinds
def test_compiled_forms_of_a_call(kind: Kind, form: str) -> None:
    options, arguments = FORMS[form]
    layer = kind(I, N, **options).double()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.randn(3, 5, I).double()
    x = x[0] if form == "unbatched" else x
    for with_gradients in (True, True, False):
        with torch.set_grad_enabled(with_gradients):
            actual, actual_hn = compiled(x, **arguments)
            expected, expected_hn = layer(x, **arguments)
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(actual_hn, expected_hn, rtol=1e-12, atol=1e-12)


CELLS = {
    "LTCCell": lambda: LTCCell(AutoNCP(N, 2), I),
    "WiredCfCCell": lambda: WiredCfCCell(I, AutoNCP(N, 2)),
    "CfCCell": lambda: CfCCell(I, N, backbone_units=6),
}


@pytest.mark.parametrize("name", CELLS)
def test_compiled_cell(name: str) -> None:
    cell: Any = CELLS[name]().double()
    compiled = torch.compile(cell, fullgraph=True, backend="aot_eager")
    x, h, dt = torch.randn(3, I).double(), torch.randn(3, N).double(), torch.rand(3, 1).double()
    actual = gradients(cell, compiled, x, h, dt)
    expected = gradients(cell, cell, x, h, dt)
    check(actual[0], expected[0])
    check(actual[1], expected[1])


def test_compiled_inside_a_model_under_autocast() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(I, I)
            self.liquid = LTC(I, AutoNCP(N, 2))

        def forward(self, x: Tensor) -> Tensor:
            return self.liquid(self.head(x))[0]

    model = Model()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = torch.randn(3, 5, I)
    with torch.autocast("cpu", torch.bfloat16):
        actual, expected = compiled(x), model(x)
    assert actual.dtype == expected.dtype == torch.float32
    torch.testing.assert_close(actual, expected)


def test_compiled_dropout_is_drawn_anew() -> None:
    layer = CfC(I, N, backbone_layers=2, backbone_units=6, backbone_dropout=0.5)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.randn(3, 5, I)
    assert not torch.equal(compiled(x)[0], compiled(x)[0])
    layer.eval()
    assert torch.equal(compiled(x)[0], layer(x)[0])


@pytest.mark.parametrize("cell", ["LTC", "CfC"])
def test_compiled_code_follows_a_loaded_checkpoint(cell: str) -> None:
    make = getattr(fastltc, cell)
    layer = make(I, Random(N, N, sparsity_level=0.5)).double()
    other = make(I, Random(N, N, sparsity_level=0.3, random_seed=5)).double()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 3, I).double()
    check([compiled(x)[0]], [layer(x)[0]])
    layer.load_state_dict(other.state_dict())
    check([compiled(x)[0]], [other(x)[0]])
    if cell == "LTC":
        mask = layer.rnn_cell.sparsity_mask
        mask.data.copy_(torch.rand_like(mask) < 0.5)
        layer.rnn_cell.refresh_synapses()
        check([compiled(x)[0]], [layer(x)[0]])


@wired_kinds
def test_negative_time_steps_in_compiled_code(kind: Kind) -> None:
    compiled = torch.compile(kind(I, N), fullgraph=True, backend="aot_eager")
    message = r"timespans: expected finite time steps of 0 or more, got -1"
    with pytest.raises(RuntimeError, match=message):
        compiled(torch.randn(2, 3, I), timespans=-torch.ones(2, 3))


def test_wrong_shapes_in_compiled_code() -> None:
    compiled = torch.compile(LTC(I, AutoNCP(N, 2)), backend="aot_eager")
    with pytest.raises(ValueError, match="I = 4 features"):
        compiled(torch.randn(2, 3, I + 1))


@pytest.mark.parametrize("strict", [True, False])
@over_kinds("LTC", "CfC, wired", "CfC, plain")
def test_export_with_any_batch_and_length(kind: Kind, strict: bool, tmp_path: Any) -> None:
    layer = kind(I, N).double().eval()
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


@wired_kinds
def test_an_exported_program_can_be_trained(kind: Kind) -> None:
    layer = kind(I, N).double()
    example = (torch.randn(2, 6, I).double(),)
    exported = export(layer, example, dynamic_shapes=({1: Dim("time")},)).module()
    x = torch.randn(2, 9, I).double()
    actual = gradients(exported, exported, x)
    expected = gradients(layer, layer, x)
    check(actual[0], expected[0])
    check([actual[1][0]], [expected[1][0]])
    names = [n for n, p in exported.named_parameters() if p.requires_grad]
    grads = dict(zip(names, actual[1][1:], strict=True))
    wanted = [n for n, p in layer.named_parameters() if p.requires_grad]
    for name, gradient in zip(wanted, expected[1][1:], strict=True):
        check([grads[name]], [gradient])


@over_kinds("LTC, mixed", "CfC, mixed")
def test_export_with_mixed_memory(kind: Kind) -> None:
    layer = kind(I, N).double()
    x = torch.randn(2, 4, I).double()
    with torch.no_grad():
        program = export(layer, (x,), dynamic_shapes=({0: Dim("batch"), 1: Dim("time")},))
    x = torch.randn(5, 7, I).double()
    check([program.module()(x)[0]], [layer(x)[0]])


def test_an_exported_program_keeps_no_states_without_gradients() -> None:
    layer = LTC(I, AutoNCP(N, 2))
    with torch.no_grad():
        program = export(layer, (torch.randn(2, 4, I),))
    calls = [n for n in program.graph.nodes if "ltc_forward" in str(n.target)]
    assert len(calls) == 1
    assert calls[0].args[-1] is False or len(calls[0].args) < 31


TRACED = {
    "LTC": lambda: LTC(I, AutoNCP(N, 2)),
    "LTC in float64": lambda: LTC(I, AutoNCP(N, 2)).double(),
    "LTC with memory": lambda: LTC(I, N, mixed_memory=True),
    "CfC": lambda: CfC(I, N, mixed_memory=True, proj_size=2),
    "wired CfC": lambda: CfC(I, AutoNCP(N, 2)),
    "MaskedLinear": lambda: MaskedLinear(I, N, torch.rand(N, I) < 0.4),
}


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", TRACED)
def test_a_fresh_layer_can_be_traced_saved_and_trained(kind: str) -> None:
    layer: Any = TRACED[kind]()
    dtype = next(layer.parameters()).dtype
    # It raises where its check, which is run without gradients, sees another graph.
    traced = torch.jit.trace(layer, (torch.randn(2, 4, I, dtype=dtype),))
    file = io.BytesIO()
    torch.jit.save(traced, file)
    file.seek(0)
    loaded = torch.jit.load(file)
    x = torch.randn(3, 4, I, dtype=dtype)
    outputs = [module(x) for module in (layer, loaded)]
    first, second = (o if isinstance(o, Tensor) else o[0] for o in outputs)
    torch.testing.assert_close(second, first)
    for output in (first, second):
        output.sum().backward()
    for name, parameter in loaded.named_parameters():
        expected = layer.get_parameter(name).grad
        if expected is not None:
            torch.testing.assert_close(parameter.grad, expected, msg=name)
