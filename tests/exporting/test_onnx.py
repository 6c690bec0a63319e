"""The ONNX file, run by onnxruntime: the same numbers as torch, for any batch and time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ncps.wirings import AutoNCP

import export_cases
import fastltc
import runtime_cases
from fastltc.exporting import ExportError, describe
from fastltc.exporting.onnx_graph import OPSET, build_onnx, write_onnx

onnx = pytest.importorskip("onnx", reason="no onnx: pip install 'fastltc[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="no onnxruntime")


def session(content: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def run(runner: Any, x: torch.Tensor, timespans: torch.Tensor, state: np.ndarray) -> Any:
    inputs = {"x": x.numpy(), "timespans": timespans.numpy(), "state": state}
    return runner.run(["output", "next_state"], inputs)


@pytest.mark.parametrize("name", export_cases.MODELS)
def test_the_numbers_of_torch(name: str) -> None:
    module = export_cases.make(name)
    model = describe(module)
    runner = session(build_onnx(model).SerializeToString())
    for batch, steps in ((1, 1), (1, 300), (4, 20)):
        x, timespans = export_cases.random_sequence(model.input_size, batch, steps)
        wanted, last, tolerance = export_cases.run_exactly(module, x, timespans)
        zeros = np.zeros((batch, model.state_size), dtype=np.float32)
        output, state = run(runner, x, timespans, zeros)
        assert output.shape == (batch, steps, model.output_size)
        assert export_cases.difference(output, wanted) < tolerance
        assert export_cases.difference(state, last) < tolerance


@pytest.mark.parametrize("name", runtime_cases.TIME_STEP_LAYERS)
def test_every_time_step_as_the_reference(name: str) -> None:
    layer, x, dt, outputs, state = runtime_cases.time_step_case(name)
    runner = session(build_onnx(describe(layer)).SerializeToString())
    rows = {"x": x.swapaxes(0, 1).copy(), "timespans": dt.T.copy()}
    start = np.zeros(state.shape, np.float32)
    output, last = runner.run(["output", "next_state"], {**rows, "state": start})
    runtime_cases.assert_agree(output.swapaxes(0, 1), outputs, 1e-5)
    runtime_cases.assert_agree(last, state, 1e-5)


@pytest.mark.parametrize("name", ["ltc, mixed memory", "stack"])
def test_a_sequence_in_pieces(name: str) -> None:
    model = describe(export_cases.make(name))
    runner = session(build_onnx(model).SerializeToString())
    x, timespans = export_cases.random_sequence(model.input_size, 3, 20)
    start = np.random.default_rng(0).random((3, model.state_size), dtype=np.float32)
    whole, end = run(runner, x, timespans, start)
    first, state = run(runner, x[:, :7], timespans[:, :7], start)
    nothing, state = run(runner, x[:, :0], timespans[:, :0], state)
    second, state = run(runner, x[:, 7:], timespans[:, 7:], state)
    assert nothing.shape[1] == 0
    assert np.abs(np.concatenate([first, second], 1) - whole).max() < 1e-6
    assert np.abs(state - end).max() < 1e-6


def test_an_empty_batch() -> None:
    model = describe(fastltc.LTC(3, AutoNCP(9, 2)))
    x, timespans = torch.zeros(0, 5, 3), torch.ones(0, 5)
    runner = session(build_onnx(model).SerializeToString())
    output, state = run(runner, x, timespans, np.zeros((0, 9), dtype=np.float32))
    assert output.shape == (0, 5, 2)
    assert state.shape == (0, 9)


def test_the_file(tmp_path: Path) -> None:
    model = describe(fastltc.LTC(3, AutoNCP(9, 2)))
    write_onnx(model, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == [tmp_path / "model.onnx"]
    made = onnx.load(tmp_path / "model.onnx")
    assert made.opset_import[0].version == OPSET == 17
    assert made.producer_name == "fastltc"
    assert made.producer_version == fastltc.__version__
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*made.graph.input, *made.graph.output)
    }
    assert shapes == {
        "x": ["batch", "time", 3],
        "timespans": ["batch", "time"],
        "state": ["batch", 9],
        "output": ["batch", "time", 2],
        "next_state": ["batch", 9],
    }


def test_the_unit_of_time_and_names() -> None:
    layer = fastltc.LTC(3, AutoNCP(9, 2))
    made = build_onnx(describe(layer, time_unit=60, output_names=["off", "an, on"]))
    facts = {entry.key: entry.value for entry in made.metadata_props}
    assert float(facts["fastltc.time_unit"]) == 60.0
    assert json.loads(facts["fastltc.output_names"]) == ["off", "an, on"]
    assert "fastltc.input_names" not in facts
    (timespans,) = (value for value in made.graph.input if value.name == "timespans")
    assert timespans.doc_string == "in units of 60 s"
    (timespans,) = (v for v in build_onnx(describe(layer)).graph.input if v.name == "timespans")
    assert timespans.doc_string == "in seconds"


def test_too_many_unfolds_are_refused() -> None:
    model = describe(fastltc.LTC(3, AutoNCP(9, 2), ode_unfolds=65))
    with pytest.raises(ExportError, match="ode_unfolds: expected at most 64 for ONNX, got 65"):
        build_onnx(model)
