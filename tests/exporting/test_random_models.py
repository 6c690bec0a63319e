"""Random stacks with random masks: C99, ONNX and the runtime all compute what torch computes."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ncps.wirings import FullyConnected, Random
from torch import nn

import export_cases
import fastltc
from fastltc import runtime
from fastltc.exporting import describe
from fastltc.exporting.c_source import write_c
from fastltc.exporting.onnx_graph import build_onnx
from fastltc.runtime import Model, read_model
from fastltc.runtime.model_file import write_model
from fastltc.wirings import AutoNCP

ACTIVATIONS = [
    nn.ReLU, nn.Tanh, nn.Sigmoid, nn.SiLU, nn.GELU, nn.Softplus, lambda: nn.Softmax(dim=-1)
]  # fmt: skip


def wiring(data: st.DataObject) -> Any:
    kind = data.draw(st.sampled_from(["full", "random", "ncp"]))
    if kind == "ncp":
        motors = data.draw(st.integers(1, 3))
        return AutoNCP(data.draw(st.integers(motors + 3, 12)), motors)
    neurons = data.draw(st.integers(1, 8))
    if kind == "full":
        return FullyConnected(neurons, neurons, self_connections=data.draw(st.booleans()))
    return Random(neurons, neurons, sparsity_level=data.draw(st.sampled_from([0.1, 0.5, 0.9])))


def ltc(data: st.DataObject, inputs: int) -> Any:
    maps = st.sampled_from(["affine", "linear", None])
    layer = fastltc.LTC(
        inputs,
        wiring(data),
        mixed_memory=data.draw(st.booleans()),
        input_mapping=data.draw(maps),
        output_mapping=data.draw(maps),
        ode_unfolds=data.draw(st.integers(1, 7)),
        epsilon=data.draw(st.sampled_from([0.0, 1e-8, 0.1])),
        implicit_param_constraints=data.draw(st.booleans()),
    )
    prune(data, layer)
    return layer


def prune(data: st.DataObject, layer: nn.Module) -> None:
    """Sometimes take synapses away, all of them too."""
    state = layer.state_dict()
    for key, mask in state.items():
        if key.endswith("sparsity_mask"):
            kept = data.draw(st.sampled_from([1.0, 0.7, 0.0]))
            state[key] = mask * (torch.rand_like(mask) < kept)
    layer.load_state_dict(state)


def cfc(data: st.DataObject, inputs: int) -> Any:
    options: dict[str, Any] = {
        "mode": data.draw(st.sampled_from(["default", "pure", "no_gate"])),
        "mixed_memory": data.draw(st.booleans()),
    }
    if data.draw(st.booleans()):
        options["proj_size"] = data.draw(st.integers(1, 4))
    if data.draw(st.booleans()):
        layer = fastltc.CfC(inputs, wiring(data), **options)
        prune(data, layer)
        return layer
    layers = data.draw(st.integers(0, 3))
    activation = data.draw(st.sampled_from(["lecun_tanh", "silu", "relu", "tanh", "gelu"]))
    options |= {"backbone_layers": layers, "activation": activation}
    options["backbone_units"] = data.draw(st.integers(1, 9)) if layers else 0
    return fastltc.CfC(inputs, data.draw(st.integers(1, 9)), **options)


def stack(data: st.DataObject) -> list[nn.Module]:
    width = data.draw(st.integers(1, 6))
    layers: list[nn.Module] = []
    kinds = data.draw(
        st.lists(st.sampled_from(["linear", "activation", "ltc", "cfc"]), min_size=1, max_size=4)
    )
    if not {"ltc", "cfc"} & set(kinds):
        kinds.append(data.draw(st.sampled_from(["ltc", "cfc"])))
    for kind in kinds:
        if kind == "activation":
            layers.append(data.draw(st.sampled_from(ACTIVATIONS))())
            continue
        if kind == "linear":
            width_after = data.draw(st.integers(1, 6))
            layers.append(nn.Linear(width, width_after, bias=data.draw(st.booleans())))
            width = width_after
            continue
        layers.append(ltc(data, width) if kind == "ltc" else cfc(data, width))
        width = describe([layers[-1]]).output_size
    return [layer.eval() for layer in layers]


def run_c(model: Model, x: np.ndarray, timespans: np.ndarray, folder: Path) -> Any:
    write_c(model, folder)
    (folder / "run.c").write_text(export_cases.DRIVER)
    flags = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-O1"]
    flags += ["-DWRITES_STATE", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    built = subprocess.run(
        ["gcc", *flags, "model.c", "run.c", "-o", "run", "-lm"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    rows = np.concatenate([timespans[:, None], x], 1).astype(np.float32)
    done = subprocess.run([folder / "run"], input=rows.tobytes(), capture_output=True, check=True)
    numbers = np.frombuffer(done.stdout, dtype=np.float32)
    return numbers[: -model.state_size].reshape(len(x), -1), numbers[-model.state_size :]


def run_onnx(model: Model, x: np.ndarray, timespans: np.ndarray) -> Any:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        build_onnx(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    state = np.zeros((1, model.state_size), dtype=np.float32)
    inputs = {"x": x[None], "timespans": timespans[None], "state": state}
    output, state = session.run(None, inputs)
    return output[0], state[0]


def run_session(model: Model, x: np.ndarray, timespans: np.ndarray) -> Any:
    session = runtime.Session(model)
    return session.run(x, timespans), session.get_state().reshape(-1)


TARGETS = {
    "C": pytest.param(run_c, marks=pytest.mark.skipif(not shutil.which("gcc"), reason="no gcc")),
    "ONNX": pytest.param(
        run_onnx,
        marks=pytest.mark.skipif(
            not all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime")),
            reason="no onnx, or no onnxruntime",
        ),
    ),
    "runtime": run_session,
}


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_random_models(target: Any, data: st.DataObject) -> None:
    torch.manual_seed(data.draw(st.integers(0, 2**32 - 1)))
    module = stack(data)
    model = describe(module)
    x, timespans = export_cases.random_sequence(model.input_size, 1, 12)
    timespans[0, data.draw(st.integers(0, 11))] = 0
    wanted, last, tolerance = export_cases.run_exactly(module, x, timespans)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "model.safetensors"
        write_model(model, path)
        read = read_model(path)
        folder = [Path(name)] if target is run_c else []
        output, state = target(read, x[0].numpy(), timespans[0].numpy(), *folder)
    assert export_cases.difference(output, wanted[0]) < tolerance
    assert export_cases.difference(state, last[0]) < tolerance
