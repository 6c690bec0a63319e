"""The command ``fastltc export``."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors
import torch
from click.testing import CliRunner, Result
from ncps.wirings import AutoNCP

import cli_support
import fastltc
from cli_support import fails
from fastltc.cli.main import main
from fastltc.jobs import Run
from fastltc.runtime import Session, read_model


def invoke(*arguments: object) -> Result:
    return cli_support.invoke("export", *arguments)


@pytest.fixture
def state_dict(tmp_path: Path) -> Path:
    path = tmp_path / "layer.pt"
    torch.save(fastltc.LTC(4, AutoNCP(9, 2)).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "run"
    options = ["--epochs", "1", "--batch-size", "256", "--units", "14", "--threads", "1"]
    result = CliRunner().invoke(main, ["train", "--out", str(path), *options])
    assert result.exit_code == 0, result.output
    return path


def test_a_state_dict(state_dict: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    result = invoke(state_dict, "-o", out, "--ode-unfolds", 4, "--epsilon", 1e-6)
    assert result.exit_code == 0, result.output
    assert (
        "taken, as a state dict does not hold them: ode_unfolds=4, epsilon=1e-06" in result.stdout
    )
    assert "layer 0: LTC, 9 neurons, 4 unfolds, 4 inputs, 2 outputs" in result.stdout
    assert read_model(out).layers[0]["ode_unfolds"] == 4


def test_the_unit_of_time_and_names_of_a_state_dict(state_dict: Path, tmp_path: Path) -> None:
    out, c = tmp_path / "model.safetensors", tmp_path / "c"
    result = invoke(state_dict, "-o", out)
    assert "time steps in seconds" in result.stdout
    options = ["--time-unit", 60, "--input-names", 'a,"b, c",d,e', "--output-names", "off,on"]
    result = invoke(state_dict, "-o", out, *options)
    assert result.exit_code == 0, result.output
    assert "time steps in units of 60 s" in result.stdout
    session = Session.load(out)
    assert session.time_unit == 60
    assert session.input_names == ("a", "b, c", "d", "e")
    assert session.output_names == ("off", "on")
    # They go on with the model file.
    assert invoke(out, "--c", c).exit_code == 0
    header = (c / "model.h").read_text()
    assert "#define MODEL_TIME_UNIT 60.0f" in header
    assert '#define MODEL_OUTPUT_NAMES {"off", "on"}' in header
    fails(invoke(state_dict, "-o", out, "--time-unit", 0), "time_unit: expected a number of sec")
    fails(invoke(state_dict, "-o", out, "--input-names", "a"), "input_names: expected 4 names")
    fails(invoke(out, "-o", out, "--time-unit", 1), "a model file is exported as it is", status=2)


def series(folder: Path) -> Path:
    """Write recordings whose readings are 60 seconds apart."""
    random = np.random.default_rng(0)
    for split, rows in (("train", 60), ("val", 30), ("test", 30)):
        lines = ["time,warm,wet,label"]
        for row in range(rows):
            warm = random.standard_normal()
            lines.append(f"{60 * row},{warm},{random.random()},{'yes' if warm > 0 else 'no'}")
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_a_run_with_a_unit_of_time_and_names(tmp_path: Path) -> None:
    data = series(tmp_path)
    options = ["--model", "series-ltc", "--window", "8", "--epochs", "1", "--threads", "1"]
    run = tmp_path / "run"
    arguments = ["train", f"csv:{data}", "--out", str(run), *options]
    trained = CliRunner().invoke(main, arguments)
    assert trained.exit_code == 0, trained.output
    assert " test sequences, 2 classes" in trained.output
    out, c, onnx_file = tmp_path / "model.safetensors", tmp_path / "c", tmp_path / "model.onnx"
    result = invoke(run, "-o", out, "--c", c)
    assert result.exit_code == 0, result.output
    assert "time steps in units of 60 s" in result.stdout
    session = Session.load(out)
    assert session.time_unit == 60.0
    assert session.input_names == ("warm", "wet")
    assert session.output_names == ("no", "yes")
    with pytest.raises(ValueError, match="in units of 60 s, got -1"):
        session.step(np.zeros(2), -1.0)
    header = (c / "model.h").read_text()
    assert "dt units of 60 s after the last" in header
    assert "dt seconds" not in header
    assert '#define MODEL_INPUT_NAMES {"warm", "wet"}' in header
    # The inputs and outputs of the layer by itself are others.
    result = invoke(run, "-o", out, "--layer", "rnn")
    assert result.exit_code == 0, result.output
    session = Session.load(out)
    assert (session.time_unit, session.input_names, session.output_names) == (60.0, (), ())
    onnx = pytest.importorskip("onnx", reason="no onnx: pip install 'fastltc[onnx]'")
    assert invoke(run, "--onnx", onnx_file).exit_code == 0
    facts = {entry.key: entry.value for entry in onnx.load(onnx_file).metadata_props}
    assert facts["fastltc.time_unit"] == "60.0"
    assert json.loads(facts["fastltc.input_names"]) == ["warm", "wet"]
    assert json.loads(facts["fastltc.output_names"]) == ["no", "yes"]


def test_all_formats_from_a_model_file(state_dict: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="no onnx: pip install 'fastltc[onnx]'")
    first = tmp_path / "model.safetensors"
    assert invoke(state_dict, "-o", first).exit_code == 0
    again, c, onnx = tmp_path / "again.safetensors", tmp_path / "c", tmp_path / "model.onnx"
    result = invoke(first, "-o", again, "--c", c, "--name", "pilot", "--onnx", onnx)
    assert result.exit_code == 0, result.output
    assert read_model(again).layers == read_model(first).layers
    assert sorted(path.name for path in c.iterdir()) == ["pilot.c", "pilot.h"]
    assert re.search(r"pilot\.h, .*pilot\.c: flash [\d,]+ bytes, RAM 36 bytes", result.stdout)
    assert "opset 17" in result.stdout
    assert onnx.stat().st_size > 1000


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")
def test_sizes_say_where_they_are_from(state_dict: Path, tmp_path: Path) -> None:
    result = invoke(state_dict, "--c", tmp_path / "c", "--cc", "gcc")
    assert re.search(r"of stack \(size of the object by gcc -Os [\d.]+ for ", result.stdout)


@pytest.mark.parametrize("option", ["--int8", "--fixed"])
def test_integers_from_a_model_file(option: str, tmp_path: Path) -> None:
    source, data = tmp_path / "model.safetensors", tmp_path / "data.npz"
    fastltc.export(fastltc.CfC(3, 4), source)
    x = np.random.default_rng().standard_normal((2, 30, 3))
    np.savez(data, x=x, timespans=np.full((2, 30), 0.1))
    result = invoke(source, "--c", tmp_path, option, "--calibration", data)
    assert result.exit_code == 0, result.output
    assert f"ranges from {data}, 2 x 30 steps" in result.stdout
    assert ("error against the float model" in result.stdout) == (shutil.which("cc") is not None)
    assert "expf" not in (tmp_path / "model.c").read_text()
    header = (tmp_path / "model.h").read_text()
    assert re.search(r"weights of (8|16)", header)
    assert option == "--int8" or "weights of 16 bits" in header


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--int8", "--fixed", "--c", "x"], "--int8, --fixed: give one of them"),
        (["--fixed", "-o", "x"], "--fixed: needs --c"),
        (["--c", "x", "--calibration", __file__], "--calibration: needs --int8 or --fixed"),
        (["--c", "x", "--int8", "--calibration", __file__], "calibration: "),
    ],
)
def test_mistakes_about_integers(options: list[str], text: str, tmp_path: Path) -> None:
    source = tmp_path / "model.safetensors"
    fastltc.export(fastltc.CfC(3, 4), source)
    result = invoke(source, *options)
    assert result.exit_code != 0
    assert text in result.stderr


def test_the_liquid_layer_of_a_run(run_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    fails(
        invoke(run_folder, "-o", out),
        "the whole model cannot be exported: module (ConvNCP): cannot be exported",
        "--layer rnn (LTC, 16 inputs a step)",
    )
    assert not out.exists()
    result = invoke(run_folder, "-o", out, "--layer", "rnn", "--checkpoint", "last")
    assert result.exit_code == 0, result.output
    trained = Run.open(run_folder).load_checkpoint("last.pt").model
    model = read_model(out)
    weight = trained.rnn.rnn_cell.w.detach().numpy()
    assert np.array_equal(model.tensors["layers.0.rnn_cell.w"], weight)
    with safetensors.safe_open(out, "numpy") as file:
        assert (
            file.metadata()["checkpoint"] == Run.open(run_folder).load_checkpoint("last.pt").origin
        )
    assert model.output_names == tuple(str(digit) for digit in range(10))
    assert model.input_names == ()
    # The factor that the model has behind its layer.
    assert np.array_equal(model.tensors["layers.1.weight"], trained.gain * np.eye(10))
    fails(invoke(run_folder, "-o", out, "--layer", "conv1"), "layer: expected one of rnn")
    fails(invoke(run_folder, "-o", out, "--epsilon", 1), "--epsilon: a run folder", status=2)


def test_the_whole_model_of_a_run(tmp_path: Path) -> None:
    options = ["--model", "rows-cfc", "--epochs", "1", "--batch-size", "256", "--threads", "1"]
    several = CliRunner().invoke(main, ["train", "--out", str(tmp_path / "several"), *options])
    assert several.exit_code == 0, several.output
    fails(invoke(tmp_path / "several", "-o", tmp_path / "m"), "reads: the readout sees the states")
    options += ["--reads", "1", "--timestep", "0.3"]
    trained = CliRunner().invoke(main, ["train", "--out", str(tmp_path / "run"), *options])
    assert trained.exit_code == 0, trained.output
    out = tmp_path / "model.safetensors"
    result = invoke(tmp_path / "run", "-o", out)
    assert result.exit_code == 0, result.output
    model = Run.open(tmp_path / "run").load_checkpoint("best.pt").model
    images = torch.rand(3, 1, 8, 8) * 2 - 1
    session = Session.load(out, streams=3)
    for row in images[:, 0].unbind(1):
        logits = session.step(row.contiguous().numpy(), 0.3)
    assert np.abs(logits - model(images).detach().numpy()).max() < 1e-5


def test_the_layer_of_a_checkpoint_file(run_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    fails(invoke(run_folder / "best.pt", "-o", out), "more than its liquid layer 'rnn'")
    result = invoke(run_folder / "best.pt", "-o", out, "--layer", "rnn")
    assert result.exit_code == 0, result.output
    assert read_model(out).input_size == 16


def test_mistakes(state_dict: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    fails(invoke(state_dict), "nothing to write", status=2)
    fails(invoke(tmp_path / "none.pt", "-o", out), "does not exist", status=2)
    fails(invoke(tmp_path, "-o", out), "not a run folder")
    fails(invoke(state_dict, "-o", tmp_path / "no" / "a"), "No such file or directory")
    fails(invoke(state_dict, "--c", tmp_path / "c", "--name", "a b"), "name: expected a C ident")
    fails(invoke(state_dict, "--c", tmp_path / "c", "--cc", "no-such-cc"), "is not on the PATH")
    fails(invoke(state_dict, "-o", out, "--ode-unfolds", 0), "ode_unfolds: expected an integer")
    fails(invoke(state_dict, "-o", out, "--mode", "pure"), "--mode: no option of", status=2)
    invoke(state_dict, "-o", out)
    fails(invoke(out, "-o", out, "--layer", "rnn"), "a model file is exported as it is", status=2)
    content = bytearray(out.read_bytes())
    content[-1] ^= 1
    out.write_bytes(content)
    fails(invoke(out, "--c", tmp_path / "c"), "damaged or tampered with")
