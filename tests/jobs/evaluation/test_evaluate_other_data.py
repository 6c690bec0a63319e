"""A trained model on other data than its own."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from fastltc.cli.main import main
from fastltc.jobs import Run, TrainConfig, evaluate, plots, predict, predict_series, train
from fastltc.jobs.data import DataError
from job_support import leave_out_pictures, write_images

# The module: its name in the package is that of the function.
evaluation = import_module("fastltc.jobs.evaluation.evaluate")

SERIES = {"epochs": 1, "units": 6, "window": 10, "threads": 1, "lr": 1e-2}


def write_series(
    path: Path,
    rows: int = 200,
    step: float = 60.0,
    columns: tuple[str, ...] = ("level", "noise"),
) -> str:
    """A class that goes on and off every 10 rows, and a level that follows it."""
    rng = np.random.default_rng(0)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["time", *columns, "label"])
        for row in range(rows):
            on = row // 10 % 2
            cells = {"level": on + 0.3 * rng.normal(), "noise": 100 + 5 * rng.normal()}
            writer.writerow([row * step, *(cells.get(name, 7) for name in columns), on])
    return f"csv:{path}"


@pytest.fixture(autouse=True, scope="module")
def no_pictures() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        leave_out_pictures(patch)
        for name in ("roc_curve", "precision_recall", "calibration"):
            patch.setattr(plots, name, lambda *arguments, **options: b"")
        patch.setattr(evaluation, "curves_of", lambda *arguments, **options: None)
        yield


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("series")
    config = TrainConfig.for_data(write_series(folder / "own.csv"), **SERIES)
    return train(config, folder / "run")


def last_probability(folder: Path) -> float:
    with open(folder / "predictions-test.csv", newline="") as file:
        return float(list(csv.DictReader(file))[-1]["1"])


def test_steps_of_other_data_are_in_the_unit_of_training(series: Run, tmp_path: Path) -> None:
    slow = write_series(tmp_path / "slow.csv", step=600.0)
    evaluate(series, "test", data=slow, out=tmp_path, resamples=0)
    checkpoint = series.load_checkpoint()
    assert checkpoint.time_unit == 60
    expected = predict_series(checkpoint, tmp_path / "slow.csv")[-1].probabilities["1"]
    assert last_probability(tmp_path) == pytest.approx(expected, rel=1e-4)


def test_columns_of_other_data_are_found_by_name(series: Run, tmp_path: Path) -> None:
    results = [
        evaluate(
            series,
            "test",
            data=write_series(tmp_path / f"{index}.csv", columns=columns),
            out=tmp_path,
            resamples=0,
        )
        for index, columns in enumerate(
            [("level", "noise"), ("noise", "level"), ("more", "level", "noise")]
        )
    ]
    losses = [result["loss"] for result in results]
    assert losses == [losses[0]] * 3
    other = write_series(tmp_path / "other.csv", columns=("level", "humidity"))
    with pytest.raises(DataError, match=r"no column 'noise'.*an input of the model"):
        evaluate(series, "test", data=other, out=tmp_path)


def test_categories_of_other_data_are_those_of_the_training(tmp_path: Path) -> None:
    def table(name: str, kinds: str, *, more: bool = False) -> str:
        lines = [f"time,level,kind{',remark' * more},label"]
        for row in range(120):
            cells = [60 * row, row % 7, kinds[row % len(kinds)], *["fine"] * more, row // 10 % 2]
            lines.append(",".join(map(str, cells)))
        (tmp_path / name).write_text("\n".join(lines))
        return f"csv:{tmp_path / name}"

    config = TrainConfig.for_data(table("own.csv", "abc"), categorical="kind", **SERIES)
    run = train(config, tmp_path / "run")
    assert run.load_checkpoint().features == ("level", "kind=a", "kind=b", "kind=c")
    # One of them is not there, and neither is a column of text that nobody asked for.
    other = table("other.csv", "ab", more=True)
    result = evaluate(run, data=other, out=tmp_path / "out", resamples=0)
    assert result["n"] == 120


@pytest.mark.parametrize("stride", [3, 10])
def test_each_row_of_the_training_split_is_judged_once(tmp_path: Path, stride: int) -> None:
    """Of 134 rows, as if sequences of 10 did not overlap but for the last one."""
    data = write_series(tmp_path / "own.csv", rows=191)
    run = train(TrainConfig.for_data(data, **{**SERIES, "stride": stride}), tmp_path / "run")
    result = evaluate(run, "train", resamples=0)
    assert result["n"] == 134
    with open(run.path / "predictions-train.csv", newline="") as file:
        names = [row["name"].rpartition(":")[2] for row in csv.DictReader(file)]
    rows = sorted(sum(map(int, name.split("+"))) for name in names)
    assert rows == list(range(1, 135))
    starts = {int(name.split("+")[0]) for name in names}
    assert len(starts) == (14 if stride == 10 else 15)
    assert evaluate(run, "test", resamples=0)["n"] == 38


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("photos")
    write_images(folder / "own", {"[b]at": 30, "cat": 30})
    config = TrainConfig.for_data(f"folder:{folder / 'own'}", model="probe", threads=1)
    return train(config, folder / "run")


def test_of_other_images_all_are_judged_in_the_size_of_training(
    photos: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "external"
    write_images(folder, {"[b]at": 10, "cat": 15}, side=13, mode="RGB")
    result = evaluate(photos, data=f"folder:{folder}", out=tmp_path, resamples=0)
    assert (result["split"], result["n"]) == ("all", 25)
    assert result["remarks"] == [
        "without splits of its own: all of it is judged",
        "images resized to 8x8",
    ]
    with open(tmp_path / "predictions-all.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    found = predict(photos.load_checkpoint(), [folder])
    assert [row["name"] for row in rows] == [str(one.image.path) for one in found]
    scores = [float(row["cat"]) for row in rows]
    expected = [one.probabilities["cat"] for one in found]
    np.testing.assert_allclose(scores, expected, atol=0.02)  # whole grey levels there
    # A split by request, as in training, and as ever of the run's own data.
    result = evaluate(photos, "test", data=f"folder:{folder}", out=tmp_path, resamples=0)
    assert (result["split"], result["n"]) == ("test", 5)
    result = evaluate(photos, data=photos.config.data, out=tmp_path, resamples=0)
    assert (result["split"], result["n"]) == ("test", 12)
    assert evaluate(photos, out=tmp_path, resamples=0)["n"] == 12


def test_other_data_may_be_of_one_class_and_have_splits(photos: Run, tmp_path: Path) -> None:
    write_images(tmp_path / "one", {"cat": 5})
    result = evaluate(photos, data=f"folder:{tmp_path / 'one'}", out=tmp_path)
    assert (result["n"], result["auc"]) == (5, None)
    for split, count in (("train", 3), ("val", 3), ("test", 6)):
        write_images(tmp_path / "three" / split, {"[b]at": count, "cat": count})
    result = evaluate(photos, data=f"folder:{tmp_path / 'three'}", out=tmp_path, resamples=0)
    assert (result["split"], result["n"]) == ("test", 12)


def test_the_command_says_what_was_judged(photos: Run, tmp_path: Path) -> None:
    write_images(tmp_path / "other", {"[b]at": 7, "cat": 12})
    arguments = ["evaluate", str(photos.path), "--data", f"folder:{tmp_path / 'other'}"]
    printed = CliRunner().invoke(main, [*arguments, "--out", str(tmp_path), "--resamples", "0"])
    assert printed.exit_code == 0, printed.output
    assert "note: without splits of its own: all of it is judged" in printed.stdout
    assert "other all: 19 examples" in printed.stdout
    assert "predictions-all.csv" in printed.stdout
    table = [line.split() for line in printed.stdout.splitlines() if "[b]at" in line]
    assert table[0][3:5] == ["[b]at", "cat"]
    assert table[1][0] == "[b]at"


def test_of_another_series_all_rows_are_judged(series: Run, tmp_path: Path) -> None:
    data = write_series(tmp_path / "other.csv", rows=57)
    result = evaluate(series, data=data, out=tmp_path, resamples=0)
    assert (result["split"], result["n"]) == ("all", 57)
    with open(tmp_path / "predictions-all.csv", newline="") as file:
        scores = [float(row["1"]) for row in csv.DictReader(file)]
    expected = predict_series(series.load_checkpoint(), tmp_path / "other.csv")
    np.testing.assert_allclose(scores, [row.probabilities["1"] for row in expected], rtol=1e-5)
    # Shorter than a sequence.
    data = write_series(tmp_path / "short.csv", rows=4)
    assert evaluate(series, data=data, out=tmp_path, resamples=0)["n"] == 4


def test_of_other_arrays_all_are_judged(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(60, 3))
    np.savez(tmp_path / "own.npz", x=x, y=(x[:, 0] > 0).astype(int))
    np.savez(tmp_path / "other.npz", x=x[:9], y=(x[:9, 0] > 0).astype(int))
    run = train(TrainConfig.for_data(f"npz:{tmp_path / 'own.npz'}", threads=1), tmp_path / "run")
    result = evaluate(run, data=f"npz:{tmp_path / 'other.npz'}", resamples=0)
    assert (result["split"], result["n"]) == ("all", 9)


def test_data_of_the_training_that_has_moved_is_no_other_data(
    photos: Run, series: Run, tmp_path: Path
) -> None:
    for run, count in ((photos, 12), (series, 40)):
        kind, _, place = run.config.data.partition(":")
        moved = tmp_path / Path(place).name
        (shutil.copytree if kind == "folder" else shutil.copyfile)(place, moved)
        result = evaluate(run, data=f"{kind}:{moved}", out=tmp_path, resamples=0)
        assert (result["split"], result["n"]) == ("test", count)
        assert result["remarks"][0] == "the data of the training, in another place"
        assert result["accuracy"] == run.metrics["test"]["accuracy"]
    # As many images, but others.
    write_images(tmp_path / "other", {"[b]at": 30, "cat": 30}, side=9)
    result = evaluate(photos, data=f"folder:{tmp_path / 'other'}", out=tmp_path, resamples=0)
    assert (result["split"], result["n"]) == ("all", 60)
