"""Inputs up to the largest float32: sessions, C, ONNX and torch give what float64 does.

They do as long as no sum of a linear map leaves the range of a float32, and behind such a map that
does to one side, the inputs of an LTC are then infinite and count as the largest.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ncps.wirings import AutoNCP
from torch import Tensor, nn

import export_cases
import fastltc
from fastltc.exporting import describe
from fastltc.exporting.c_source import write_c
from fastltc.exporting.onnx_graph import build_onnx
from runtime_cases import make_session

GCC = shutil.which("gcc")
MOST = float(np.finfo(np.float32).max)
SIZES = (1.0, 1e10, 1e20, 1e30, 1e38, MOST)

MAIN = """
#include "model.h"
#include <stdio.h>
int main(void)
{
    static model_state state;
    float input[MODEL_INPUT_SIZE], dt, output[MODEL_OUTPUT_SIZE];
    while (fread(input, sizeof input, 1, stdin) == 1) {
        dt = 1.0f;
        model_reset(&state);
        if (model_step(&state, input, dt, output) != MODEL_OK) {
            return 1;
        }
        fwrite(output, sizeof output, 1, stdout);
    }
    return 0;
}
"""


def one_sided(inputs: int, outputs: int) -> nn.Linear:
    """Make a map whose products have one sign for inputs of one sign."""
    layer = nn.Linear(inputs, outputs)
    with torch.no_grad():
        layer.weight.copy_(layer.weight.abs() + 1)
        layer.weight[1::2] *= -1
    return layer


STACKS = {
    "linear, ltc": lambda: [one_sided(3, 6), fastltc.LTC(6, AutoNCP(12, 4))],
    "linear, relu, ltc": lambda: [one_sided(3, 6), nn.ReLU(), fastltc.LTC(6, AutoNCP(40, 4))],
    "ltc": lambda: [fastltc.LTC(3, AutoNCP(12, 4))],
    "ltc, no maps": lambda: [fastltc.LTC(3, AutoNCP(12, 4), input_mapping=None)],
    "ltc, mixed memory": lambda: [fastltc.LTC(3, AutoNCP(9, 2), mixed_memory=True)],
    "cfc": lambda: [fastltc.CfC(3, 7)],
    "wired cfc": lambda: [fastltc.CfC(3, AutoNCP(12, 4))],
}


def made(name: str) -> list[nn.Module]:
    stack = STACKS[name]()
    with torch.no_grad():
        for layer in stack:
            if isinstance(layer, fastltc.LTC):
                for key, parameter in layer.named_parameters():
                    if key.endswith("input_w"):
                        parameter.fill_(2.5)  # so that mapped inputs leave the range
            else:
                for parameter in layer.parameters():
                    if not isinstance(layer, nn.Linear) and parameter.requires_grad:
                        parameter.mul_(0.2)  # so that sums stay inside
    return stack


def ways(stack: list[nn.Module], x: Tensor, folder: Path) -> Iterator[tuple[str, Any]]:
    """Run each row as a first step in all ways there are, in float32."""
    rows = x.numpy()
    one = make_session(stack)
    outputs = []
    for row in rows:
        one.reset()
        outputs.append(one.step(row))
    yield "one stream", np.array(outputs)
    yield "streams", make_session(stack, len(rows)).step(rows)
    model = describe(stack)
    if GCC is not None:
        write_c(model, folder)
        (folder / "main.c").write_text(MAIN, encoding="utf-8")
        command = [GCC, "-O1", "-std=c99", "main.c", "model.c", "-o", "main", "-lm"]
        subprocess.run(command, cwd=folder, check=True)
        done = subprocess.run(
            [folder / "main"], input=rows.tobytes(), capture_output=True, check=True
        )
        yield "C", np.frombuffer(done.stdout, np.float32).reshape(len(rows), -1)
    onnxruntime = pytest.importorskip("onnxruntime", reason="no onnxruntime")
    runner = onnxruntime.InferenceSession(
        build_onnx(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    spans = np.ones((len(rows), 1), np.float32)
    start = np.zeros((len(rows), model.state_size), np.float32)
    inputs = {"x": rows[:, None], "timespans": spans, "state": start}
    yield "ONNX", runner.run(["output"], inputs)[0][:, 0]
    for batch in (1, len(rows)):
        for grad in (False, True):  # one sample without a gradient takes post lanes
            y = []
            for part in x.split(batch):
                value = part[:, None]
                for layer in stack:
                    with torch.set_grad_enabled(grad):
                        value = layer(value)
                    value = value[0] if isinstance(value, tuple) else value
                y.append(value[:, 0].detach())
            yield f"torch, batch {batch}, grad {grad}", torch.cat(y).numpy()


@pytest.mark.parametrize("name", STACKS)
def test_large_inputs_give_what_float64_does(name: str, tmp_path: Path) -> None:
    torch.manual_seed(5)
    stack = made(name)
    x = torch.tensor([[s * size] * 3 for size in SIZES for s in (1, -1)], dtype=torch.float32)
    wanted, _, _ = export_cases.run_exactly(stack, x[:, None], torch.ones(len(x), 1))
    for way, output in ways(stack, x, tmp_path):
        np.testing.assert_allclose(output, wanted[:, 0].numpy(), atol=2e-5, err_msg=way)


def test_what_is_no_number_stays_none(tmp_path: Path) -> None:
    torch.manual_seed(5)
    first, then = nn.Linear(1, 2), nn.Linear(2, 3)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[2.0], [-2.0]]))
        then.weight.fill_(1)  # infinity less infinity
    for second in (nn.ReLU(), nn.Softplus(), nn.SiLU(), nn.GELU(), nn.Softmax(-1)):
        stack = [first, then, second, fastltc.LTC(3, 5)]
        x = torch.full((4, 1), MOST)
        for way, output in ways(stack, x, tmp_path):
            assert np.isnan(output).all(), (way, second)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [5, 70])
def test_gradients_at_infinite_inputs(dtype: torch.dtype, size: int) -> None:
    layer = fastltc.LTC(3, size).to(dtype)
    wide = torch.finfo(dtype).max
    x = torch.tensor([[[wide, -wide, 0.5]]], dtype=dtype).expand(3, 2, 3).clone().requires_grad_()
    with torch.no_grad():
        layer.rnn_cell.input_w.fill_(4)
    outputs, _ = layer(x)
    outputs.sum().backward()
    assert x.grad is not None
    assert (x.grad[..., :2].abs() < 1e-30).all()
    assert (x.grad[..., 2] != 0).all()
    sigma = layer.rnn_cell.sensory_sigma.grad
    assert sigma is not None
    assert (sigma[:2].abs() < 1e-8).all()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
