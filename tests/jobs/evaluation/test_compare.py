"""Which runs stand side by side, and what the table says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fastltc.cli.main import main
from fastltc.jobs import Run, RunError, TrainConfig, compare, plots, train
from job_support import leave_out_pictures, write_images

DATA = "folder:/photos"


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_run(
    path: str,
    *,
    positive: str | None = "cat",
    digest: str | None = None,
    tested: int = 40,
    **options: Any,
) -> str:
    """What training leaves behind, as far as it is compared."""
    run = Run.create(path, TrainConfig(data=DATA, model="dense", **options))
    test = {"auc": 0.75, "accuracy": 0.625, "f1_macro": 0.5, "loss": 0.5}
    if positive is not None:
        test |= {"f1": 0.125, "average_precision": 0.25}
        test["positive_class"] = {"label": 0, "name": positive}
    splits = {} if digest is None else {"splits": {"test": {"n": tested, "digest": digest}}}
    run.write_metrics(
        {
            "status": "finished",
            "data": DATA,
            "images": {"train": 140, "val": 20, "test": tested},
            "model": "dense",
            "trainable_parameters": 1234,
            "seed": 0,
            "seconds": 1.0,
            "val": test,
            "test": test,
            **splits,
        }
    )
    return path


def printed(*runs: str) -> list[list[str]]:
    result = CliRunner().invoke(main, ["compare", *runs])
    assert result.exit_code == 0, result.output
    return [line.split() for line in result.stdout.splitlines()]


def test_f1_of_another_class_is_in_a_column_of_its_own(tmp_path: Path) -> None:
    runs = [write_run("a"), write_run("b", positive="dog"), write_run("c", positive=None)]
    head, a, b, c = printed(*runs)
    assert " ".join(head[4:]) == (
        "auc accuracy f1 (cat) f1 (dog) average_precision (cat) average_precision (dog)"
    )
    assert a[4:] == ["0.7500", "0.6250", "0.1250", "-", "0.2500", "-"]
    assert b[4:] == ["0.7500", "0.6250", "-", "0.1250", "-", "0.2500"]
    assert c[4:] == ["0.7500", "0.6250", "-", "-", "-", "-"]
    rows = compare(runs, tmp_path / "out")
    assert [row["positive"] for row in rows] == ["cat", "dog", None]
    assert (tmp_path / "out" / "compare.png").is_file()


def test_the_picture_names_the_class_and_leaves_out_what_does_not_compare(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    titles: list[str] = []

    def keep(figure: Any, **options: str) -> bytes:
        titles[:] = [axes.get_title() for axes in figure.axes]
        return b""

    monkeypatch.setattr(plots.runs, "to_png", keep)
    compare([write_run("a"), write_run("b")], Path("out"))
    assert titles[:-1] == ["AUC", "accuracy", "F1 (cat)", "average precision (cat)"]
    compare(["a", write_run("c", positive="dog")], Path("out"))
    assert titles[:-1] == ["AUC", "accuracy"]


@pytest.mark.parametrize("option", ["split_seed", "group_column"])
def test_other_test_examples_do_not_compare(option: str) -> None:
    value = {"split_seed": 1, "group_column": "patient"}[option]
    runs = [write_run("a"), write_run("b", **{option: value})]
    with pytest.raises(RunError, match=rf"b: {option} is .*, in a it is .*: other test examples"):
        compare(runs)


def test_the_same_examples_in_another_form_are_remarked_on() -> None:
    runs = [write_run("a", image_size=28), write_run("b", image_size=64)]
    remark = "b: image_size is 64, in a it is 28: the test examples in another form"
    assert [row["remarks"] for row in compare(runs)] == [[], [remark]]
    assert " ".join(printed(*runs)[-1]) == f"note: {remark}"


def test_the_digest_of_the_test_split_decides() -> None:
    # Splits that the source has are not made by the seed.
    same = [write_run("a", digest="1"), write_run("b", digest="1", split_seed=1)]
    assert [row["remarks"] for row in compare(same)] == [[], []]
    with pytest.raises(RunError, match=r"c: was tested on other examples than a \(40 and 40\)"):
        compare(["a", write_run("c", digest="2")])
    # A run of an older version has none.
    with pytest.raises(RunError, match=r"d: was tested on other examples than a \(41 and 40\)"):
        compare(["a", write_run("d", tested=41)])


def test_names_are_no_markup_and_no_column_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    names = [f"{'long' * 30}/[bold]run[/b]", "[red]x"]
    runs = [write_run(name, positive="[b]at") for name in names]
    head, *rows = printed(*runs)
    assert " ".join(head[-4:]) == "f1 ([b]at) average_precision ([b]at)"
    assert [row[0] for row in rows] == names


def test_runs_know_the_digest_of_what_they_were_tested_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_out_pictures(monkeypatch)
    write_images(tmp_path / "one", {"a": 20, "b": 20})
    for split in ("train", "val", "test"):
        write_images(tmp_path / "three" / split, {"a": 8, "b": 8})
    for name in ("one", "three"):
        for seed in (0, 1):
            config = TrainConfig.for_data(
                f"folder:{tmp_path / name}", model="probe", split_seed=seed, threads=1
            )
            train(config, tmp_path / f"{name}-{seed}")
    with pytest.raises(RunError, match=r"one-1: split_seed is 1, in .*one-0 it is 0"):
        compare([tmp_path / "one-0", tmp_path / "one-1"])
    # The seed of a split that was not made.
    compare([tmp_path / "three-0", tmp_path / "three-1"])
