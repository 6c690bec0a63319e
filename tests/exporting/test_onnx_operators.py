"""What torch.onnx.export writes of models with these layers, run by onnxruntime."""

from __future__ import annotations

import copy
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
import torch
from ncps.wirings import AutoNCP
from torch import Tensor, nn
from torch.export import Dim
from torch.utils._pytree import tree_leaves

import fastltc
from fastltc import LTC, CfC, CfCCell, LTCCell, MaskedLinear, ParallelLTC
from fastltc.ops import mask_entries, masked_linear

pytest.importorskip("onnxscript", reason="no onnxscript: pip install 'fastltc[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="no onnxruntime")

F, I, N = 3, 4, 12  # noqa: E741
# Of torch.onnx and what it imports.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore::torch.jit.TracerWarning",
    "ignore:# The axis name",
    "ignore:overflow encountered in cast:RuntimeWarning",
)


def wiring(motors: int = 2) -> AutoNCP:
    return AutoNCP(N, motors)


LAYERS = {
    "LTC": lambda: LTC(I, wiring(), implicit_param_constraints=True),
    "LTC with memory": lambda: LTC(I, wiring(), mixed_memory=True, input_mapping=None),
    "LTC, last step": lambda: LTC(
        I, wiring(), ode_unfolds=2, batch_first=False, return_sequences=False
    ),
    "wired CfC": lambda: CfC(I, wiring()),
    "wired CfC with memory": lambda: CfC(I, wiring(), mode="pure", mixed_memory=True),
    "CfC": lambda: CfC(
        I, N, proj_size=2, backbone_layers=2, backbone_units=7, mode="no_gate", activation="silu"
    ),
}


class Model(nn.Module):
    """An encoder, layers beside each other, and a head for each."""

    def __init__(self, kinds: Collection[str], others: bool = False) -> None:
        super().__init__()
        self.encoder = nn.Linear(F, I)
        self.masked = MaskedLinear(I, I, torch.rand(I, I) < 0.6)
        self.layers = nn.ModuleDict({kind: LAYERS[kind]() for kind in kinds})
        self.heads = nn.ModuleDict({kind: nn.Linear(2, 5) for kind in kinds})
        self.beside = ParallelLTC([LTC(I, wiring(), ode_unfolds=2) for _ in range(2)])
        self.cells = nn.ModuleList([LTCCell(wiring(), I, ode_unfolds=2), CfCCell(I, N)])
        self.others = others

    def forward(
        self, x: Tensor, h: Tensor, dt: Tensor, spans: Tensor, lengths: Tensor, resets: Tensor
    ) -> Any:
        x = self.masked(torch.relu(self.encoder(x)))
        found: list[Any] = []
        for kind, layer in self.layers.items():
            u, times, anew = x, spans if kind in ("LTC", "wired CfC") else dt, resets
            if not layer.batch_first:
                u, times, anew = (each.transpose(0, 1) for each in (u, times, anew))
            state = (h, h * 2) if layer.use_mixed else h
            to_zero = kind in ("LTC with memory", "wired CfC")
            output, hn = layer(u, state, times, lengths, anew, reset_to_zero=to_zero)
            found += [self.heads[kind](output), hn]
        if self.others:
            stacked = torch.stack([x, 2 * x])
            found += [self.beside(stacked, timespans=dt, lengths=lengths, resets=resets)]
            found += [cell(x.sum(1), h, 0.5) for cell in self.cells]
        return found


def arguments(batch: int, time: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    lengths = torch.randint(0, time + 1, (batch,))
    x = torch.randn(batch, time, F, dtype=dtype)
    dt, spans = torch.rand(batch, time, dtype=dtype), torch.rand(batch, time, N, dtype=dtype)
    dt[torch.rand(batch, time) < 0.2] = 0
    # What stands there may be anything.
    dt[torch.arange(time) >= lengths.unsqueeze(1)] = torch.nan
    resets = torch.rand(batch, time) < 0.3
    return x, torch.randn(batch, N, dtype=dtype), dt, spans, lengths, resets


STEPS = {0: "batch", 1: "time"}
SHAPES = (STEPS, {0: "batch"}, STEPS, STEPS, {0: "batch"}, STEPS)


def export(model: Any, given: tuple[Tensor, ...] = (), **more: Any) -> Any:
    table = fastltc.onnx_translations()
    return torch.onnx.export(
        model, given, custom_translation_table=table, **{"verbose": False, **more}
    )


class Runner:
    """What onnxruntime computes of a program."""

    def __init__(self, program: Any, folder: Path) -> None:
        program.save(folder / "model.onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        # What older versions fuse beyond that they cannot run in float64.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        self._session = onnxruntime.InferenceSession(
            folder / "model.onnx", options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, *given: Tensor) -> list[Tensor]:
        names = [value.name for value in self._session.get_inputs()]
        feeds = {name: tensor.numpy() for name, tensor in zip(names, given, strict=True)}
        return [torch.from_numpy(output) for output in self._session.run(None, feeds)]


def check(model: nn.Module, runner: Runner, dtype: torch.dtype, bound: float) -> None:
    exact = copy.deepcopy(model).double()
    for batch, time in ((3, 9), (1, 1), (2, 6), (0, 4), (2, 0)):
        given = arguments(batch, time, dtype)
        with torch.no_grad():
            wanted = tree_leaves(exact(*(g.double() if g.dtype == dtype else g for g in given)))
        for actual, expected in zip(runner(*given), wanted, strict=True):
            assert actual.dtype == dtype
            torch.testing.assert_close(actual.double(), expected, rtol=0, atol=bound)


def test_any_batch_and_time_in_float64(tmp_path: Path) -> None:
    model = Model(LAYERS, others=True).eval().double()
    given = arguments(2, 6, torch.float64)
    program = export(model, given, dynamic_shapes=SHAPES, optimize=False)
    check(model, Runner(program, tmp_path), torch.float64, 1e-10)


def test_any_batch_and_time_in_float32(tmp_path: Path) -> None:
    model = Model(["LTC", "wired CfC"]).eval()
    program = export(model, arguments(2, 6, torch.float32), dynamic_shapes=SHAPES)
    check(model, Runner(program, tmp_path), torch.float32, 2e-5)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.masked = MaskedLinear(F, I, torch.rand(I, F) < 0.6)
        self.liquid = LTC(I, wiring(), ode_unfolds=2)
        self.closed = CfC(2, wiring(), mode="pure")

    def forward(self, x: Tensor) -> Tensor:
        return self.closed(self.liquid(self.masked(x))[0])[0]


class ByEntries(nn.Module):
    def __init__(self, masked: MaskedLinear) -> None:
        super().__init__()
        self.masked, self.entries = masked, mask_entries(masked.mask)

    def forward(self, x: Tensor) -> Tensor:
        m = self.masked
        return masked_linear(x, m.weight, m.mask, m.bias, self.entries, by_entries=True)


def test_a_program_that_was_exported_before(tmp_path: Path) -> None:
    model: Any = Small().eval().double()
    model.masked = ByEntries(model.masked)
    x, dims = torch.randn(2, 5, F).double(), {0: Dim("batch"), 1: Dim("time")}
    program = torch.export.export(model, (x,), dynamic_shapes=(dims,))
    assert "masked_linear" in str(program.graph)
    runner = Runner(export(program), tmp_path)
    x = torch.randn(3, 7, F).double()
    torch.testing.assert_close(runner(x)[0], model(x), rtol=0, atol=1e-10)


def test_a_script_of_ncps_exports_one_number_of_steps(tmp_path: Path) -> None:
    masked = MaskedLinear(F, I, torch.rand(I, F) < 0.6)
    model = fastltc.Sequential(masked, LTC(I, wiring(), ode_unfolds=1)).eval()
    program = torch.onnx.export(
        model, (torch.randn(2, 2, F),), dynamic_shapes=({0: "batch"},), verbose=False
    )
    assert not any(node.op_type == "Loop" for node in program.model.graph)
    x = torch.randn(5, 2, F)
    for actual, expected in zip(Runner(program, tmp_path)(x), tree_leaves(model(x)), strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=2e-5)


def test_errors_name_the_way(tmp_path: Path) -> None:
    model, x = Small().eval(), torch.randn(2, 3, F)
    way = "custom_translation_table=fastltc.onnx_translations"
    with pytest.raises(RuntimeError, match=way):
        torch.onnx.export(model, (x,), dynamic_shapes=({1: "time"},), verbose=False)
    with pytest.raises(NotImplementedError, match=f"dynamo=False.*{way}"):
        torch.onnx.export(model, (x,), tmp_path / "model.onnx", dynamo=False)


def test_dropout_is_refused() -> None:
    training = CfC(I, N, backbone_layers=2, backbone_dropout=0.5)
    x = torch.randn(2, 3, I)
    with (
        pytest.warns(UserWarning, match="training mode"),
        pytest.raises(RuntimeError, match="dropout: expected a model in evaluation"),
    ):
        export(training, (x,))
