"""Files of run folders that somebody has made to do harm: refused in one line, at once."""

from __future__ import annotations

import json
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from cli_support import fails, invoke
from fastltc.jobs import ConfigError, Run, RunError, TrainConfig, compare, read_toml, train
from fastltc.jobs.models import MODELS, Goal, build_model
from fastltc.jobs.models.registry import least_values
from job_support import dense, leave_out_pictures


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        leave_out_pictures(patch)
        return train(dense(), tmp_path_factory.mktemp("runs") / "run").path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Run:
    import shutil

    shutil.copytree(trained, tmp_path / "run")
    return Run.open(tmp_path / "run")


def change(path: Path, **changes: Any) -> None:
    content = torch.load(path, weights_only=True)
    for name, value in changes.items():
        if isinstance(value, dict) and name in ("config", "training"):
            content[name] |= value
        else:
            content[name] = value
    torch.save(content, path)


@pytest.mark.parametrize("model", ["rows-ltc", "rows-cfc", "conv-ncp", "reservoir"])
@pytest.mark.parametrize("how", ["units", "classes", "members"])
def test_sizes_are_those_of_the_tensors_before_a_model_is_made(
    run: Run, model: str, how: str
) -> None:
    """Wirings of 20,000 neurons take minutes, and gigabytes."""
    config: dict[str, Any] = {"model": model, "units": 20_000}
    changes: dict[str, Any] = {"image_shape": [1, 28, 28]}
    if how == "classes":
        config["units"] = None if model == "conv-ncp" else 20_000
        changes["classes"] = [str(number) for number in range(20_000)]
    if how == "members":
        config |= {"units": 64, "members": 1 << 20}
    change(run.path / "best.pt", config=config, **changes)
    started = time.perf_counter()
    with pytest.raises(RunError, match=r"best.pt: damaged checkpoint: .* has at least .* values"):
        run.load_checkpoint()
    assert time.perf_counter() - started < 5


SHAPES = {"images": (1, 32, 32), "series": (7, 3), "vectors": (11,)}
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"units": 23},
    {"wiring": "ncp", "units": 23},
    {"wiring": "full", "encoder": 0, "reads": 3},
    {"cell": "cfc", "units": 23},
    {"mixed_memory": True},
    {"members": 3},
    {"reads": 32},
    {"encoder": 31, "units": 5},
    {"decoder": 1, "units": 40},
    {"decoder": 70, "units": 5, "time_input": True},
    {"wiring": "none", "units": 300, "backbone_units": 1},
    {"wiring": "none", "units": 3, "backbone_units": 80, "backbone_layers": 3},
    {"wiring": "none", "units": 30, "backbone_layers": 0},
    {"wiring": "none", "units": 30, "mixed_memory": True},
)


@pytest.mark.parametrize(
    "options",
    [
        {"model": "series-ltc", "encoder": 1 << 30},
        {"model": "series-cfc", "decoder": 1 << 30},
        {"model": "series-cfc", "wiring": "none", "backbone_units": 1 << 30},
        {"model": "series-cfc", "wiring": "none", "backbone_units": 8, "backbone_layers": 1 << 30},
    ],
)
def test_sizes_of_series_are_compared_before_anything_is_made(
    run: Run, options: dict[str, Any]
) -> None:
    change(run.path / "best.pt", config={"units": 8, **options}, image_shape=[9, 3])
    started = time.perf_counter()
    with pytest.raises(RunError, match=r"best.pt: damaged checkpoint: .* has at least .* values"):
        run.load_checkpoint()
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize("name", [name for name in MODELS if not name.startswith(("res", "eff"))])
@pytest.mark.parametrize("classes", [2, 10])
def test_every_real_model_has_so_many_values(name: str, classes: int) -> None:
    made = 0
    for kind in MODELS[name].kinds:
        for options in OPTIONS:
            if not {*options} <= {*MODELS[name].options, "units", "members"}:
                continue
            shape = SHAPES[kind]
            goal = None
            if name.startswith("patches"):
                shape = (shape[0], classes)
                goal = Goal("forecasting", classes, horizon=1, own=tuple(range(classes)))
            try:
                model = build_model(name, shape, classes, goal=goal, **options)
            except ValueError:
                continue
            made += 1
            held = sum(value.numel() for value in model.state_dict().values())
            assert least_values(name, shape, classes, **options) <= held
    assert made


def test_a_number_that_is_said_to_be_there_a_billion_times(run: Run) -> None:
    state = torch.load(run.path / "best.pt", weights_only=True)["model"]
    state["layers.1.weight"] = torch.zeros(1).expand(1 << 15, 1 << 15)
    change(run.path / "best.pt", model=state)
    with pytest.raises(RunError, match=r"4,29\d,\d{3},\d{3} bytes of tensors in a file of"):
        run.load_checkpoint()


def test_a_packed_checkpoint(run: Run) -> None:
    path = run.path / "best.pt"
    with zipfile.ZipFile(path) as file:
        members = {member.filename: file.read(member) for member in file.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    with pytest.raises(RunError, match=r"damaged checkpoint, not as torch\.save packs it"):
        run.load_checkpoint()


BAD: list[tuple[dict[str, Any], str]] = [
    ({"classes": 5}, "classes: expected names, got 5"),
    ({"classes": ["a"]}, "classes: expected names"),
    ({"classes": [1] * 10}, "classes: expected names"),
    ({"positive": "1"}, "positive: expected a number or None, got '1'"),
    ({"positive": 10}, "positive: expected one of 10, got 10"),
    ({"image_shape": []}, "image_shape: expected one to three sizes"),
    ({"image_shape": [1, 8, -8]}, "image_shape: expected one to three sizes"),
    ({"image_shape": [1, 8, 8.5]}, "image_shape: expected one to three sizes"),
    ({"image_shape": [1, 1 << 30, 1 << 30]}, "image_shape: expected at most"),
    ({"epoch": "3"}, "epoch: expected a number from 0, got '3'"),
    ({"epoch": -1}, "epoch: expected a number from 0, got -1"),
    ({"val": 3}, "val: expected a dictionary"),
    ({"model": [1]}, "model: expected a dictionary"),
    ({"model": {"layers.1.weight": 3}}, "model: 'layers.1.weight': expected a tensor"),
    ({"features": 3}, "features: expected names"),
    ({"time_unit": float("nan")}, "time_unit: expected seconds from 0"),
    ({"multilabel": 1}, "multilabel: expected True or False"),
    ({"splits": {"test": 3}}, "splits: expected sizes and digests"),
    ({"splits": {"test": {"n": 3}}}, "splits: expected sizes and digests"),
    ({"training": 3}, "training: expected a dictionary or None"),
    ({"config": {"units": 1 << 70}}, "units: expected a number of 64 bits"),
    ({"config": {"units": [3]}}, r"units: expected int, got \[3\]"),
    ({"config": {"model": "nothing"}}, "model: expected one of"),
    ({"config": {5: 3}}, "damaged checkpoint"),
    ({"format": torch.zeros(3)}, "damaged checkpoint"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_fields_of_other_types(run: Run, changes: dict[str, Any], message: str) -> None:
    change(run.path / "best.pt", **changes)
    with pytest.raises(RunError, match=message) as raised:
        run.load_checkpoint()
    assert str(raised.value).startswith(f"{run.path / 'best.pt'}: damaged checkpoint")
    fails(invoke("evaluate", run.path), "damaged checkpoint")


@pytest.mark.parametrize(
    "changes",
    [
        {"history": 3},
        {"history": [3, 4]},
        {"history": [{"epoch": 1}, {"epoch": 2}]},
        {"history": []},
        {"best": [3]},
        {"best": {"epoch": 1}},
        {"best": {"epoch": "x"}},
        {"seconds": "long"},
        {"order": 3},
        {"random": torch.zeros(3)},
        {"optimizer": {"state": 3}},
    ],
)
def test_a_state_of_training_of_other_types(run: Run, changes: dict[str, Any]) -> None:
    change(run.path / "last.pt", training=changes)
    with pytest.raises(RunError, match=r"last.pt: damaged checkpoint: "):
        train(dense(epochs=3), run.path, resume=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"test": 3},
        {"test": {"auc": "high"}},
        {"test": {"auc": [1, 2]}},
        {"test": {"auc": 1.0, "positive_class": 3}},
        {"seed": "x"},
        {"seconds": None},
        {"epochs": []},
        {"splits": {"test": 3}, "images": 5},
        {"val": None},
        {"model": None},
        {"best_digest": 5},
    ],
)
def test_metrics_of_other_types(run: Run, changes: dict[str, Any]) -> None:
    path = run.path / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(RunError, match="damaged") as raised:
        compare([run.path])
    assert "\n" not in str(raised.value)
    fails(invoke("compare", run.path), "damaged")


@pytest.mark.parametrize("between", [3, [1], ["a", "b"], {"x": 1, "y": 2}])
def test_intervals_of_other_types(run: Run, tmp_path: Path, between: Any) -> None:
    found = {"digest": run.metrics["best_digest"], "data": "digits", "intervals": {"auc": between}}
    (run.path / "evaluation-test.json").write_text(json.dumps(found))
    with pytest.raises(RunError, match="damaged metrics"):
        compare([run.path], tmp_path / "out")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"epochs": ' + "9" * 5000 + "}", "\xff", "3"])
@pytest.mark.parametrize("name", ["config.json", "metrics.json"])
def test_json_that_is_none(run: Run, name: str, text: str) -> None:
    (run.path / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(RunError, match=f"{name}: damaged"):
        _ = run.config if name == "config.json" else run.metrics


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = " + "[" * 100_000, "not a TOML file"),
        ("units = " + "9" * 5000, "not a TOML file"),
        ("units = " + "9" * 50, "units: expected a number of 64 bits"),
        ("units = true", "units: expected int, got True"),
        ("units = [1]", r"units: expected int, got \[1\]"),
        ("lr = nan", "lr: expected a finite number above 0, got nan"),
        ("lr = 1979-05-27", "lr: expected float"),
        ("data = 3", "data: expected str, got 3"),
        ("select = {}", "select: expected str"),
        ("[units]\nx = 1", "units: expected int"),
        ("#" * (1 << 20) + "\n", "expected at most 1,048,576 bytes"),
        ("\xff", "not a TOML file"),
    ],
)
def test_toml_of_other_types(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=message) as raised:
        TrainConfig.for_data(**{"data": "digits", **read_toml(path)})
    assert str(raised.value).startswith(f"{path}: ")
    fails(invoke("train", "--config", path), "a.toml: ")
