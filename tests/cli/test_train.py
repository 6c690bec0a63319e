from __future__ import annotations

import csv
import io
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cli_support import fails, invoke
from fastltc.cli.main import main
from fastltc.jobs import Run, TrainConfig
from fastltc.jobs.config import OPTIONS
from job_support import leave_out_pictures, write_images

pytestmark = pytest.mark.usefixtures("surroundings")

DENSE = [
    "--model",
    "dense",
    "--epochs",
    "1",
    "--batch-size",
    "256",
    "--threads",
    "1",
    "--lr",
    "1e-3",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("train") / "run"
    assert invoke("train", *DENSE, "--out", path).exit_code == 0
    return path


def test_every_option_of_training_is_one_of_the_command() -> None:
    names = {parameter.name for parameter in main.commands["train"].params}
    expected = {field.name for field in fields(TrainConfig)}
    assert set(OPTIONS) == expected
    assert expected <= names


def test_options_from_a_file_and_the_command_line_wins(tmp_path: Path) -> None:
    Path("my.toml").write_text(
        'model = "dense"\nepochs = 3\nbatch_size = 256\nthreads = 1\nlr = 1e-3\n'
    )
    result = invoke("train", "digits", "--config", "my.toml", "--epochs", 1, "--out", "run")
    assert result.exit_code == 0, result.output
    config = Run.open("run").config
    assert (config.model, config.epochs, config.batch_size) == ("dense", 1, 256)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3\n", "my.toml: unknown option 'epoch'; known: "),
        ("epochs = \n", "my.toml: not a TOML file"),
        ('epochs = "3"\n', "epochs: expected int, got '3'"),
    ],
)
def test_a_bad_file(text: str, message: str) -> None:
    Path("my.toml").write_text(text)
    fails(invoke("train", "--config", "my.toml"), message)
    fails(invoke("train", "--config", "absent.toml"), "absent.toml: cannot be read")


def test_recipes_are_listed_and_shown() -> None:
    result = invoke("recipes")
    assert result.exit_code == 0
    assert "breastmnist-cfc-public" in result.stdout
    assert 'cell = "cfc"' in invoke("recipes", "breastmnist-cfc-public").stdout
    fails(invoke("recipes", "mnsit"), "recipe: expected one of")


def test_a_recipe_is_run_on_other_data() -> None:
    write_images(Path("photos"), {"cat": 30, "dog": 30}, side=28)
    result = invoke(
        "train",
        "folder:photos",
        *("--recipe", "breastmnist-cfc-public"),
        *("--epochs", 1, "--threads", 1, "--out", "run"),
    )
    assert result.exit_code == 0, result.output
    assert "conv-ncp: 263,048 trainable parameters, CfC with 19 neurons" in result.stdout
    config = Run.open("run").config
    assert config.data == f"folder:{Path('photos').resolve()}"
    # Another model leaves the options of the recipe's model behind.
    result = invoke(
        "train",
        "folder:photos",
        *("--recipe", "breastmnist-cfc-public", "--model", "dense"),
        *("--epochs", 1, "--threads", 1, "--out", "other"),
    )
    assert result.exit_code == 0, result.output
    assert "dense: 935,298 trainable parameters" in result.stdout


def test_a_file_with_another_model_leaves_the_options_of_the_recipes_model_behind() -> None:
    Path("f.toml").write_text('model = "dense"\nepochs = 1\nthreads = 1\nbatch_size = 256\n')
    recipe = ("train", "digits", "--recipe", "mnist-rows-ltc", "--config", "f.toml")
    plain = ("--augment-scale", 0, "--augment-shift", 0, "--augment-rotate", 0)
    result = invoke(*recipe, *plain, "--out", "run")
    assert result.exit_code == 0, result.output
    config = Run.open("run").config
    assert (config.model, config.encoder, config.units) == ("dense", None, None)
    assert config.schedule == "cosine"
    # Of a model in closed form those of training too; not what the command line asks for.
    Path("f.toml").write_text('model = "probe"\nthreads = 1\n')
    result = invoke(*recipe, "--out", "probe")
    assert result.exit_code == 0, result.output
    assert Run.open("probe").config.lr == TrainConfig().lr
    fails(invoke(*recipe, "--lr", 1), "lr: no option of the model probe")


def test_resume_by_command(trained: Path) -> None:
    import shutil

    run = Path(shutil.copytree(trained, "run"))
    fails(invoke("train", "--resume", run), "has 1 epochs already; give --epochs with more")
    fails(
        invoke("train", "--resume", run, "--lr", 1),
        "--lr cannot be changed in a run that is resumed",
        status=2,
    )
    result = invoke("train", "--resume", run, "--epochs", 2)
    assert result.exit_code == 0, result.output
    assert Run.open(run).metrics["epochs"] == 2
    whole = invoke("train", *DENSE, "--epochs", 2, "--out", "whole")
    assert whole.exit_code == 0
    assert Run.open("whole").metrics["test"] == Run.open(run).metrics["test"]


def test_resume_of_seeds_by_command(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastltc.jobs.training import loop

    fails(invoke("train", "--resume", "absent", "--seeds", 2), "absent: has no runs of seeds")
    real = loop._Session._test

    def test(session: Any, best: Any) -> Any:
        if session.task.config.seed == 1:
            raise KeyboardInterrupt
        return real(session, best)

    leave_out_pictures(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(loop._Session, "_test", test)
        result = invoke("train", *DENSE, "--seeds", 2, "--out", "cut")
    assert result.exit_code == 130, result.output
    assert "Go on with: fastltc train --resume cut --seeds 2" in result.stdout
    fails(
        invoke("train", "--resume", "cut"), "holds runs of several seeds; add --seeds N", status=2
    )
    fails(
        invoke("train", "--resume", "cut", "--seeds", 2, "--lr", 1),
        "--lr cannot be changed in a run that is resumed",
        status=2,
    )
    result = invoke("train", "--resume", "cut", "--seeds", 2)
    assert result.exit_code == 0, result.output
    assert "seeds 0 to 1, mean and deviation" in result.stdout
    assert "seed 0" not in result.stdout
    assert Run.open("cut/seed-1").complete


def test_an_interrupt_at_the_end_by_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    leave_out_pictures(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr("fastltc.jobs.plots.training_curve", interrupt)
        result = invoke("train", *DENSE, "--out", "run")
    assert result.exit_code == 130, result.output
    assert "fastltc train --resume run" in result.stdout
    assert invoke("train", "--resume", "run").exit_code == 0


def test_the_bar_of_a_resumed_run_starts_where_it_was() -> None:
    from rich.console import Console

    from fastltc.cli.train import _TrainView
    from fastltc.jobs.data import load_data
    from fastltc.jobs.models import build_model

    config = TrainConfig.for_data("digits", model="dense", epochs=4)
    view = _TrainView(Console(quiet=True), config, quiet=True, done=3)
    view.start(load_data("digits"), build_model("dense", (1, 8, 8), 10))
    (task,) = view.bar.tasks
    assert (task.completed, task.total) == (3 * 1257, 4 * 1257)
    assert task.fields["epoch"] == "4/4"


@pytest.mark.parametrize("width", [16, 20, 30, 45, 66, 79, 80, 200])
def test_the_bar_fits_the_terminal_with_room_for_the_echo_of_ctrl_c(width: int) -> None:
    from rich.console import Console

    from fastltc.cli.train import _TrainView
    from fastltc.jobs.data import load_data
    from fastltc.jobs.models import build_model

    console = Console(file=io.StringIO(), force_terminal=True, width=width, soft_wrap=True)
    config = TrainConfig.for_data("digits", model="dense", epochs=400)
    view = _TrainView(console, config, quiet=True)
    view.start(load_data("digits"), build_model("dense", (1, 8, 8), 10))
    for epoch in (1, 22, 333):
        view.batch(10_000)
        view.epoch({"epoch": epoch, "val_accuracy": 0.98765, "val_auc": 0.98765})
        frame = console.render_lines(view.bar.get_renderable(), pad=False)
        (line,) = ["".join(part.text for part in parts) for parts in frame]
        assert len(line.rstrip()) <= width - 2
        assert "\N{HORIZONTAL ELLIPSIS}" not in line
        assert f"epoch {epoch + 1}/400" in line
        assert ("val acc 0.988 auc 0.987" in line) == (width >= 45)
        if not 60 < width < 100:  # between them it depends on how quick this was
            assert ("/s" in line) == (width >= 100)


def test_seeds_and_compare() -> None:
    result = invoke("train", *DENSE, "--seeds", 2, "--out", "dense")
    assert result.exit_code == 0, result.output
    assert "seeds 0 to 1, mean and deviation" in result.stdout
    assert "test accuracy" in result.stdout
    result = invoke(
        *("train", "--model", "reservoir", "--units", 50, "--reads", 4, "--threads", 1),
        *("--out", "esn"),
    )
    assert result.exit_code == 0, result.output
    result = invoke("compare", "dense", "esn", "--out", "both")
    assert result.exit_code == 0, result.output
    assert "+-" in result.stdout
    rows = json.loads(Path("both/compare.json").read_text())
    assert [(row["model"], row["n"]) for row in rows] == [("dense", 2), ("reservoir", 1)]
    with Image.open("both/compare.png") as picture:
        assert min(picture.size) > 300
    fails(invoke("compare", "dense", "absent"), "absent: no such run folder")


def test_evaluate_writes_everything(trained: Path) -> None:
    result = invoke(
        *("evaluate", trained, "--positive", 8, "--recall", 0.9, "--resamples", 50),
        *("--out", "result"),
    )
    assert result.exit_code == 0, result.output
    assert "at recall >= 0.9 (reaches" in result.stdout
    assert "95 % intervals" in result.stdout
    names = sorted(path.name for path in Path("result").iterdir())
    assert names == [
        "calibration-test.png",
        "confusion-test.png",
        "evaluation-test.json",
        "precision-recall-test.png",
        "predictions-test.csv",
        "roc-test.png",
        "wrong-test.png",
    ]
    written = json.loads(Path("result/evaluation-test.json").read_text())
    assert set(written["intervals"]) == {"auc", "accuracy", "f1", "average_precision"}
    for name, (low, high) in written["intervals"].items():
        assert low <= written[name] <= high
    with open("result/predictions-test.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 360
    right = sum(row["class"] == row["predicted"] for row in rows) / 360
    assert right == pytest.approx(written["accuracy"])
    total = sum(float(rows[0][digit]) for digit in "0123456789")
    assert total == pytest.approx(1, abs=1e-4)


def test_evaluate_on_other_data(trained: Path) -> None:
    write_images(Path("digits"), {str(digit): 10 for digit in range(10)}, side=8)
    result = invoke("evaluate", trained, "--data", "folder:digits", "--resamples", 0, "--out", "o")
    assert result.exit_code == 0, result.output
    write_images(Path("letters"), {"3": 10, "b": 10}, side=8)
    fails(
        invoke("evaluate", trained, "--data", "folder:letters", "--out", "p"),
        "the model does not know class 'b' of folder:",
    )
    # Files are resized, arrays are what they are.
    np.savez("large.npz", images=np.zeros((20, 9, 9), np.uint8), labels=np.arange(20) % 2)
    fails(
        invoke("evaluate", trained, "--data", "npz:large.npz", "--out", "p"),
        "trained for inputs of shape (1, 8, 8)",
    )
    assert not Path("p").exists()
    for arguments, text in (
        (["--recall", 1.5], "recall: expected above 0 up to 1, got 1.5"),
        (["--resamples", -1], "resamples: expected a finite number from 0"),
    ):
        fails(invoke("evaluate", trained, *arguments), text)


def test_predict_on_a_folder(trained: Path) -> None:
    write_images(Path("digits"), {"a": 3, "b": 2}, side=8)
    Path("digits/notes.txt").write_text("x")
    Path("digits/x.png").mkdir()  # a folder, whatever it is called
    write_images(Path("digits/.thumbs"), {"a": 1})
    result = invoke("predict", trained, "digits", "--json")
    assert result.exit_code == 0, result.output
    assert len(json.loads(result.stdout)) == 5
    Path("empty").mkdir()
    fails(invoke("predict", trained, "empty"), "empty: no image of a known type in this folder")


def test_predict_with_a_model_of_something_else(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(60, 3))
    np.savez("v.npz", x=x, y=(x[:, 0] > 0).astype(int))
    assert invoke("train", "npz:v.npz", "--threads", 1, "--out", "run").exit_code == 0
    fails(invoke("predict", "run", "v.npz"), "probe does not classify images")


def test_a_model_for_other_data() -> None:
    fails(
        invoke("train", "digits", "--model", "series-ltc"),
        "model: series-ltc takes series, got images; for images: conv-ncp",
    )
    fails(invoke("train", "--spectral-radius", 1), "spectral_radius: no option of the model conv")
    fails(invoke("train", "--weights", "absent.pt"), "absent.pt: no such file")
    assert list(Path().iterdir()) == []


def test_predict_rows_of_a_time_series() -> None:
    lines = ["time,light,noise,label"]
    for row in range(300):
        on = (row // 10) % 2
        lines.append(f"{60 * row},{100 * on + row % 3},{row % 7},{'on' if on else 'off'}")
    Path("s.csv").write_text("\n".join(lines))
    options = ["--epochs", 8, "--batch-size", 8, "--stride", 4, "--window", 10, "--lr", "2e-2"]
    result = invoke("train", "csv:s.csv", *options, "--threads", 1, "--out", "run", "--units", 8)
    assert result.exit_code == 0, result.output
    # Other order of columns, no class, and not a whole number of sequences.
    text = [f"{line.split(',')[2]},{line.split(',')[1]},{line.split(',')[0]}" for line in lines]
    Path("new.csv").write_text("\n".join(text[:58]))
    result = invoke("predict", "run", "new.csv")
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(result.stdout.splitlines()))
    assert [float(row["time"]) for row in rows] == [60 * row for row in range(57)]
    right = [row["class"] == ("on" if (i // 10) % 2 else "off") for i, row in enumerate(rows)]
    assert np.mean(right) > 0.9
    # Times have all their digits: weeks in seconds, and less than a second.
    late = ["noise,light,time", "1,2,1000", "1,2,1000.125", "1,2,1073801.5"]
    Path("late.csv").write_text("\n".join(late))
    printed = invoke("predict", "run", "late.csv").stdout.splitlines()
    assert [row.split(",")[1] for row in printed] == ["time", "0", "0.125", "1072801.5"]
    Path("short.csv").write_text("\n".join(text[:6]))
    assert len(json.loads(invoke("predict", "run", "short.csv", "--json").stdout)) == 5
    Path("bad.csv").write_text("time,light\n0,1\n")
    fails(invoke("predict", "run", "bad.csv"), "bad.csv: no column 'noise'")
