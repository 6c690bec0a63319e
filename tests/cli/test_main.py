from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from click.testing import Result
from PIL import Image

import cli_support
from cli_support import invoke
from fastltc.cli.main import main
from job_support import publish, write_images, write_medmnist

pytestmark = pytest.mark.usefixtures("surroundings")

QUICK = ["--epochs", "1", "--batch-size", "256", "--units", "14", "--threads", "1"]


def fails(result: Result, *texts: str, status: int = 1) -> None:
    """One message on stderr, nothing on stdout, no traceback."""
    cli_support.fails(result, *texts, status=status)
    assert result.stdout == ""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "run"
    result = invoke("train", "--out", path, *QUICK)
    assert result.exit_code == 0, result.output
    return path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def imported(arguments: list[str], names: set[str]) -> tuple[str, str]:
    """What a command prints, and which of these modules it has imported then."""
    code = (
        "import atexit, sys; from fastltc.cli.main import main;"
        f"atexit.register(lambda: print(sorted({names!r} & set(sys.modules)), file=sys.stderr));"
        f"main({arguments!r})"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    return found.stdout, found.stderr.strip()


@pytest.mark.parametrize("command", ["", *main.commands])
def test_help_imports_nothing_heavy(command: str) -> None:
    heavy = {"torch", "numpy", "sklearn", "matplotlib", "rich"}
    text, found = imported([*command.split(), "--help"], heavy)
    assert found == "[]"
    assert text.startswith("Usage:")


HEAVY = {"torch", "sklearn", "matplotlib"}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--version"], ", version "),
        (["recipes"], "mnist-rows-ltc"),
        (["recipes", "mnist-rows-ltc"], "epochs = "),
        (["compare", "RUN", "RUN"], "accuracy"),
        (["compare", "RUN", "OTHER"], "the test examples in another form"),
        (["audit", "PHOTOS"], "audited: 4 train"),
    ],
)
def test_what_only_prints_text_imports_nothing_heavy(
    run: Path, tmp_path: Path, arguments: list[str], text: str
) -> None:
    for index, split in enumerate(("train", "test")):
        write_images(tmp_path / "photos" / split, {"a": 2 - index, "b": 2 - index}, side=8)
    other = shutil.copytree(run, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "image_size": 64}))
    metrics = json.loads((other / "metrics.json").read_text())
    metrics["splits"]["test"]["digest"] = "of other pixels"
    (other / "metrics.json").write_text(json.dumps(metrics))
    places = {"RUN": str(run), "OTHER": str(other), "PHOTOS": str(tmp_path / "photos")}
    printed, found = imported([places.get(word, word) for word in arguments], HEAVY)
    assert found == "[]"
    assert text in printed


def test_info_imports_torch_and_nothing_else_that_is_heavy() -> None:
    assert imported(["info"], HEAVY)[1] == "['torch']"


def test_info() -> None:
    from fastltc import info

    assert invoke("info").stdout.strip() == info.format_report()
    assert json.loads(invoke("info", "--json").stdout) == info.collect()


def test_train_goes_to_the_next_free_folder() -> None:
    for name in ("runs/digits", "runs/digits-2"):
        result = invoke("train", *QUICK)
        assert result.exit_code == 0, result.output
        assert (
            f"written to {name}: README.md, best.pt, config.json, confusion-test.png"
            in result.stdout
        )
    assert "1257 train / 180 val / 360 test, 10 classes" in result.stdout
    assert "trainable parameters" in result.stdout
    assert "epoch 1/1: training loss" in result.stdout
    metrics = json.loads(Path("runs/digits/metrics.json").read_text())
    assert f"accuracy  {metrics['test']['accuracy']:.4f}" in result.stdout


def test_train_quietly(tmp_path: Path) -> None:
    result = invoke("train", *QUICK, "--quiet", "--out", tmp_path / "run")
    assert result.exit_code == 0
    assert result.stdout.startswith("best epoch 1 of 1 by validation loss;")


def test_train_does_not_overwrite_silently(run: Path) -> None:
    before = (run / "best.pt").read_bytes()
    fails(invoke("train", *QUICK, "--quiet", "--out", run), str(run), "holds a run already")
    assert (run / "best.pt").read_bytes() == before
    assert invoke("train", *QUICK, "--out", run, "--overwrite", "--seed", "8").exit_code == 0
    assert json.loads((run / "config.json").read_text())["seed"] == 8


def test_train_breastmnist_names_the_positive_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, write_medmnist(tmp_path / "breastmnist.npz"))
    result = invoke(
        "train", "breastmnist", "--data-root", "..", "--out", "run", "--epochs", 1, "--threads", 1
    )
    assert result.exit_code == 0, result.output
    assert "(positive class: normal or benign, label 1)" in result.stdout
    assert "label 0 is malignant" in result.stdout
    # From another folder: the data root was kept as an absolute path.
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    result = invoke("evaluate", "../here/run", "--positive", "malignant")
    assert result.exit_code == 0, result.output
    assert "(positive class: malignant, label 0)" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["mnits"], "unknown data set 'mnits'; known: digits, mnist,"),
        (["breastmnist"], "breastmnist.npz not found. Looked for:"),
        (["breastmnist", "--data-root", "nowhere"], "nowhere does not exist"),
        (["--epochs", "0"], "epochs: expected at least 1, got 0"),
        (["--units", "5"], "units: expected at least 13 for 10 outputs"),
        (["--positive", "ten"], "positive: no class 'ten'"),
        (["--select", "f2"], "select: expected one of loss, auc, accuracy"),
        (["--cell", "gru"], "cell: expected one of ltc, cfc, got 'gru'"),
        (["--device", "tpu"], "device: 'tpu' cannot be used here"),
    ],
)
def test_train_with_a_bad_option_leaves_nothing(arguments: list[str], text: str) -> None:
    fails(invoke("train", *arguments), text)
    assert list(Path().iterdir()) == []


def test_train_with_a_damaged_file(tmp_path: Path) -> None:
    (tmp_path / "breastmnist.npz").write_bytes(b"PK torn")
    fails(
        invoke("train", "breastmnist", "--data-root", tmp_path),
        str(tmp_path / "breastmnist.npz"),
        "damaged or another version: expected sha256 3a22d2a4625e7dd8903f0f59030e81a3",
        "zenodo.org",
    )
    assert list(Path().iterdir()) == []


def test_traceback_on_demand() -> None:
    result = invoke("--traceback", "train", "mnits")
    assert type(result.exception).__name__ == "DataError"


def test_a_fault_of_the_program_is_not_dressed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr("fastltc.jobs.train", broken)
    result = invoke("train", "--out", "run")
    assert type(result.exception) is ValueError


def test_evaluate_prints_and_writes(run: Path) -> None:
    result = invoke("evaluate", run, "--split", "val", "--positive", 3)
    assert result.exit_code == 0, result.output
    assert "best checkpoint (epoch 1)" in result.stdout
    assert "digits val: 180 examples" in result.stdout
    assert "(positive class: 3, label 3)" in result.stdout
    written = json.loads((run / "evaluation-val.json").read_text())
    assert written["positive_class"] == {"label": 3, "name": "3"}
    assert (run / "confusion-val.png").is_file()


def test_evaluate_prints_json_and_nothing_else(run: Path) -> None:
    result = invoke("evaluate", run, "--json", "--checkpoint", "last", "--threads", 1)
    assert json.loads(result.stdout) == json.loads((run / "evaluation-test.json").read_text())
    assert json.loads(result.stdout)["checkpoint"] == "last.pt"


def test_evaluate_agrees_with_training(run: Path) -> None:
    trained = json.loads((run / "metrics.json").read_text())["test"]
    result = json.loads(invoke("evaluate", run, "--json", "--threads", 1).stdout)
    assert {name: result[name] for name in trained} == trained


def test_evaluate_without_a_run(tmp_path: Path) -> None:
    fails(invoke("evaluate", tmp_path / "absent"), "absent: no such run folder")
    fails(invoke("evaluate", tmp_path), "not a run folder (config.json is missing)")


def test_evaluate_with_a_bad_option(run: Path) -> None:
    fails(invoke("evaluate", run, "--positive", "x"), "positive: no class 'x'", "0 = 0, 1 = 1")
    fails(invoke("evaluate", run, "--split", "dev"), "'dev' is not one of", status=2)
    fails(invoke("evaluate", run, "--threads", 0), "--threads", status=2)


def test_evaluate_without_or_with_a_damaged_checkpoint(run: Path) -> None:
    (run / "best.pt").write_bytes((run / "best.pt").read_bytes()[:999])
    fails(invoke("evaluate", run), str(run / "best.pt"), "damaged checkpoint")
    (run / "best.pt").unlink()
    fails(invoke("evaluate", run), str(run / "best.pt"), "no checkpoint")
    assert not (run / "evaluation-test.json").exists()


def test_predict_says_what_it_did_to_the_image(run: Path) -> None:
    Image.new("RGB", (40, 20), (255, 255, 255)).save("page.jpg")
    result = invoke("predict", run, "page.jpg", "--invert")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("page.jpg: ")
    assert "[colour to grey, 40x20 to 8x8 (aspect ratio changed), inverted]" in result.stdout


def test_predict_draws_what_each_row_has_added(run: Path) -> None:
    Path("b").mkdir()
    for path in ("a.png", "b/a.png"):
        Image.new("L", (8, 8), 90).save(path)
    result = invoke("predict", run, "a.png", "b/a.png", "--rows", "drawn/here")
    assert result.exit_code == 0, result.output
    drawn = sorted(Path("drawn/here").iterdir())
    assert [path.name for path in drawn] == ["1-a.png", "2-a.png"]
    for path in drawn:
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert "best.pt" in picture.text["Description"]


def test_predict_of_a_grey_image_by_a_model_of_colours(tmp_path: Path) -> None:
    write_images(tmp_path / "p", {"a": 12, "b": 12}, mode="RGB")
    result = invoke("train", f"folder:{tmp_path / 'p'}", "--out", tmp_path / "run", *QUICK)
    assert result.exit_code == 0, result.output
    Image.new("L", (16, 16), 90).save("grey.png")
    fails(
        invoke("predict", tmp_path / "run", tmp_path / "p/a/0.png", "grey.png"),
        "grey.png: expected an image in colour, got a grey one",
    )
    result = invoke("predict", tmp_path / "run", "grey.png", "--grey-as-colour")
    assert result.exit_code == 0, result.output
    assert "[L to RGB" in result.stdout


def test_predict_as_json(run: Path) -> None:
    for name in ("a.png", "b.bmp"):
        Image.new("L", (8, 8), 128).save(name)
    records = json.loads(invoke("predict", run, "a.png", "b.bmp", "--json").stdout)
    assert [record["file"] for record in records] == ["a.png", "b.bmp"]
    assert records[0]["probabilities"] == records[1]["probabilities"]
    assert records[0]["class"] in "0123456789"


@pytest.mark.parametrize("json_option", [[], ["--json"]])
def test_predict_with_a_corrupt_image_prints_no_result(run: Path, json_option: list[str]) -> None:
    Image.new("L", (8, 8)).save("good.png")
    Path("bad.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    fails(invoke("predict", run, "good.png", "bad.png", *json_option), "bad.png: ")
    fails(invoke("predict", run, "absent.png", *json_option), "absent.png: no such file")


def test_predict_without_images(run: Path) -> None:
    fails(invoke("predict", run), "Missing argument 'IMAGE...'", status=2)


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_leaves_a_usable_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "fastltc.cli", "train", "--out", str(run), *QUICK]
    process = subprocess.Popen(
        [*command, "--epochs", "100000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 60
        while not (run / "last.pt").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "interrupted after epoch" in out
    assert "Traceback" not in err
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["status"] == "interrupted"
    assert metrics["epochs"] >= 1
    assert torch.load(run / "best.pt", weights_only=True)["epoch"] == metrics["best_epoch"]
    result = invoke("evaluate", run)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "3000"}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
        ({"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "7"}),
    ],
)
def test_threads_spin_shortly_unless_told_otherwise(
    given: dict[str, str], expected: dict[str, str]
) -> None:
    """Before torch is imported, since OpenMP reads its environment then."""
    program = (
        "import json, os, sys; from fastltc.cli.main import main\n"
        "early = 'torch' in sys.modules\n"
        "main(['recipes'], standalone_mode=False)\n"
        "names = 'OMP_WAIT_POLICY', 'GOMP_SPINCOUNT'\n"
        "found = {name: os.environ[name] for name in names if name in os.environ}\n"
        "print(json.dumps([found, early]))\n"
    )
    clean = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    done = subprocess.run(
        [sys.executable, "-c", program], env={**clean, **given}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [expected, False]
