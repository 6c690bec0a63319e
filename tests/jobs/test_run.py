from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fastltc.jobs import Checkpoint, ConfigError, DeviceError, Run, RunError, TrainConfig
from fastltc.jobs.models import build_model
from job_support import QUICK


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run with one checkpoint of an untrained model."""
    config = TrainConfig.for_data("digits", **QUICK)
    made = Run.create(tmp_path / "run", config)
    torch.manual_seed(0)
    model = build_model("conv-ncp", (1, 8, 8), 10, config.units, gain=config.gain)
    checkpoint = Checkpoint(config, tuple("0123456789"), None, (1, 8, 8), 3, {"loss": 1.5}, model)
    made.save_checkpoints({"best.pt": checkpoint})
    return made


def change(run: Run, **changes: Any) -> None:
    path = run.path / "best.pt"
    content = torch.load(path, weights_only=True)
    for name, value in changes.items():
        if value is None:
            del content[name]
        else:
            content[name] = value
    torch.save(content, path)


def test_a_checkpoint_comes_back(run: Run) -> None:
    loaded = run.load_checkpoint()
    assert loaded.config == run.config
    assert (loaded.epoch, loaded.val, loaded.classes[7]) == (3, {"loss": 1.5}, "7")
    torch.manual_seed(0)
    same = build_model("conv-ncp", (1, 8, 8), 10, run.config.units, gain=run.config.gain)
    images = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(loaded.model(images), same.eval()(images), rtol=0, atol=0)
    assert not loaded.model.training


def test_a_checkpoint_loads_with_weights_only_from_its_bytes(run: Run) -> None:
    content = torch.load(run.path / "best.pt", weights_only=True)
    assert content["format"] == 1
    assert content["config"]["data"] == "digits"


def test_an_existing_run_is_not_overwritten_silently(run: Run) -> None:
    before = (run.path / "best.pt").read_bytes()
    with pytest.raises(RunError, match="holds a run already; choose another --out, or --overwrite"):
        Run.create(run.path, TrainConfig())
    assert (run.path / "best.pt").read_bytes() == before


def test_overwriting_removes_the_old_run_and_nothing_else(run: Run) -> None:
    (run.path / "notes.txt").write_text("mine")
    (run.path / "evaluation-val.json").write_text("{}")
    Run.create(run.path, TrainConfig(seed=9), overwrite=True)
    assert sorted(path.name for path in run.path.iterdir()) == ["config.json", "notes.txt"]
    assert Run.open(run.path).config.seed == 9


def test_a_folder_that_is_no_run_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RunError, match="not empty and not a run folder"):
        Run.create(tmp_path, TrainConfig(), overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "x"


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("x")
    with pytest.raises(RunError, match="expected a folder for the run, got a file"):
        Run.create(tmp_path / "run", TrainConfig())


def test_an_empty_folder_will_do(tmp_path: Path) -> None:
    assert Run.create(tmp_path, TrainConfig(seed=4)).config.seed == 4


def test_opening_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="absent: no such run folder"):
        Run.open(tmp_path / "absent")
    with pytest.raises(RunError, match=r"not a run folder \(config.json is missing\)"):
        Run.open(tmp_path)


def test_a_run_without_checkpoint(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", TrainConfig())
    with pytest.raises(RunError, match=r"run/best.pt: no checkpoint"):
        run.load_checkpoint()


@pytest.mark.parametrize("text", ["{", "[]", '{"epochs": 0}', '{"colour": 1}'])
def test_a_damaged_configuration(run: Run, text: str) -> None:
    (run.path / "config.json").write_text(text)
    with pytest.raises(RunError, match=r"run/config.json: "):
        _ = run.config


@pytest.mark.parametrize("size", [0, 10, 3000, 100_000])
def test_a_truncated_checkpoint(run: Run, size: int) -> None:
    path = run.path / "best.pt"
    content = path.read_bytes()
    assert size < len(content)
    path.write_bytes(content[:size])
    with pytest.raises(RunError, match=r"run/best.pt: damaged checkpoint"):
        run.load_checkpoint()


def test_a_flipped_bit_is_noticed(run: Run) -> None:
    path = run.path / "best.pt"
    whole = path.read_bytes()
    weights = run.load_checkpoint().model.state_dict()
    noticed = 0
    for place in range(len(whole) // 80, len(whole), len(whole) // 40):
        content = bytearray(whole)
        content[place] ^= 0x10
        path.write_bytes(content)
        try:
            found = run.load_checkpoint().model.state_dict()
        except RunError as error:
            noticed += f"{path}: " in str(error)
        else:
            # It was in what fills the space between two entries.
            assert all(torch.equal(found[name], value) for name, value in weights.items())
    assert noticed > 20


@pytest.mark.parametrize(
    "save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))]
)
def test_a_pickle_that_would_run_code_is_not_loaded(
    run: Run, tmp_path: Path, save: Callable[[Any, Path], Any]
) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "attacked",))

    save({"model": Attack()}, run.path / "best.pt")
    with pytest.raises(RunError, match=r"best.pt: damaged checkpoint") as raised:
        run.load_checkpoint()
    assert not (tmp_path / "attacked").exists()
    assert "weights_only" not in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": None}, "damaged checkpoint: 'model' is missing"),
        ({"format": 99}, "checkpoint format 1 expected, got 99"),
        ({"model": {}}, "at least 336 values, its tensors have 0"),
        ({"classes": ["a", "b"]}, "size mismatch"),
        ({"image_shape": [1, 8]}, "damaged checkpoint"),
        ({"config": {"units": 30}}, "size mismatch"),
        ({"config": {"units": -1}}, "units: expected at least 1"),
        ({"config": 3}, "damaged checkpoint"),
    ],
)
def test_a_checkpoint_with_other_content(run: Run, changes: dict[str, Any], message: str) -> None:
    change(run, **changes)
    with pytest.raises(RunError, match=message) as raised:
        run.load_checkpoint()
    assert str(run.path / "best.pt") in str(raised.value)


def test_a_checkpoint_that_is_no_dictionary(run: Run) -> None:
    torch.save(torch.zeros(3), run.path / "best.pt")
    with pytest.raises(RunError, match=r"expected a dictionary, got Tensor"):
        run.load_checkpoint()


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there(run: Run, device: str) -> None:
    with pytest.raises(DeviceError, match=f"device: '{device}' cannot be used here"):
        run.load_checkpoint(device=device)
    assert issubclass(DeviceError, ConfigError)


def test_metrics_are_plain_json(run: Run) -> None:
    run.write_metrics({"status": "running"})
    assert json.loads((run.path / "metrics.json").read_text()) == run.metrics
