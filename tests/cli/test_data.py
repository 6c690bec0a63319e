from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli_support import invoke
from job_support import real_data, write_images


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_split_then_audit_then_train(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", {"cat": 40, "dog": 60}, side=16)
    out = tmp_path / "splits"
    result = invoke("split", tmp_path / "photos", "--out", out, "--seed", 4)
    assert result.exit_code == 0, result.output
    assert f"{out / 'train'}.csv: 70 (28 cat, 42 dog)" in result.stdout
    assert "no leak found" in result.stdout
    first = rows(out / "test.csv")
    assert len(first) == 20
    assert (out / first[0]["filename"]).is_file()
    assert sorted(path.name for path in out.iterdir()) == [
        "audit.json",
        "audit.txt",
        "test.csv",
        "train.csv",
        "val.csv",
    ]
    invoke("split", tmp_path / "photos", "--out", tmp_path / "again", "--seed", 4)
    invoke("split", tmp_path / "photos", "--out", tmp_path / "other", "--seed", 5)
    names = [
        [Path(row["filename"]).name for row in rows(tmp_path / folder / "test.csv")]
        for folder in ("splits", "again", "other")
    ]
    assert names[0] == names[1] != names[2]
    assert invoke("audit", f"csv:{out}").exit_code == 0
    run = tmp_path / "run"
    result = invoke("train", f"csv:{out}", "--epochs", 1, "--threads", 1, "--out", run)
    assert result.exit_code == 0, result.output
    assert "70 train / 10 val / 20 test, 2 classes" in result.stdout


def test_no_file_of_an_earlier_split_or_audit_is_left(tmp_path: Path) -> None:
    leaky, clean = tmp_path / "leaky", tmp_path / "clean"
    for split, count in (("train", 30), ("test", 20)):
        for folder in (leaky, clean):
            write_images(folder / split, {"a": count, "b": count}, side=16)
    for kind in ("a", "b"):
        for index in range(5):
            copy = (leaky / "train" / kind / f"{index}.png").read_bytes()
            (leaky / "test" / kind / f"copy-{index}.png").write_bytes(copy)
    out = tmp_path / "out"
    assert invoke("audit", leaky, "--out", out).exit_code == 1
    assert (out / "audit.png").is_file()
    assert invoke("audit", clean, "--out", out).exit_code == 0
    assert sorted(path.name for path in out.iterdir()) == ["audit.json", "audit.txt"]
    # Of tables that --fix makes, the report of the ones before is none.
    result = invoke("audit", leaky, "--fix", out)
    assert result.exit_code == 1, result.output
    assert sorted(path.name for path in out.iterdir()) == ["test.csv", "train.csv"]
    assert invoke("split", leaky / "train", "--out", out).exit_code == 0
    names = sorted(path.name for path in out.iterdir())
    assert names == ["audit.json", "audit.txt", "test.csv", "train.csv", "val.csv"]


def test_split_by_patients_in_the_file_names(tmp_path: Path) -> None:
    write_images(tmp_path / "p", {"ill": 60, "well": 60}, side=16)
    for kind in ("ill", "well"):
        for path in list((tmp_path / "p" / kind).iterdir()):
            path.rename(path.with_name(f"{kind}{int(path.stem) // 4}_{path.name}"))
    out = tmp_path / "out"
    pattern = r"^([a-z]+\d+)_"
    result = invoke("split", tmp_path / "p", "--out", out, "--group-pattern", pattern)
    assert result.exit_code == 0, result.output
    groups = {
        name: {row["group"] for row in rows(out / f"{name}.csv")}
        for name in ("train", "val", "test")
    }
    assert not groups["train"] & groups["test"]
    assert len(groups["train"] | groups["val"] | groups["test"]) == 30
    result = invoke("split", tmp_path / "p", "--out", out, "--group-pattern", "(")
    assert result.exit_code == 1
    assert "--group-pattern '(': no regular expression" in result.stderr


def test_split_with_duplicates(tmp_path: Path) -> None:
    write_images(tmp_path / "p", {"a": 40, "b": 40}, side=16)
    for index in range(40):
        for kind in "ab":
            source = tmp_path / "p" / kind / f"{index}.png"
            source.with_name(f"copy{index}.png").write_bytes(source.read_bytes())
    out = tmp_path / "out"
    result = invoke("split", tmp_path / "p", "--out", out, "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert {entry["kind"] for entry in report["exposed"]} == {"bytes"}
    assert "run again with --fix" in result.stderr
    assert json.loads((out / "audit.json").read_text()) == report
    with Image.open(out / "audit.png") as sheet:
        assert sheet.format == "PNG"
    result = invoke("split", tmp_path / "p", "--out", out, "--fix")
    assert result.exit_code == 0, result.output
    assert "no leak found" in result.stdout


def test_split_leaves_no_table_of_an_earlier_split(tmp_path: Path) -> None:
    write_images(tmp_path / "p", {"a": 20, "b": 20}, side=16)
    out = tmp_path / "out"
    assert invoke("split", tmp_path / "p", "--out", out, "--no-near").exit_code == 0
    shares = ("--shares", 0.5, 0, 0.5)
    result = invoke("split", tmp_path / "p", "--out", out, "--no-near", *shares)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in out.glob("*.csv")) == ["test.csv", "train.csv"]


def test_audit_finds_and_fixes(tmp_path: Path) -> None:
    write_images(tmp_path / "p" / "train", {"a": 20, "b": 20}, side=16)
    write_images(tmp_path / "p" / "test", {"a": 8, "b": 8}, side=16)
    for index in range(3):
        copy = tmp_path / "p" / "test" / "a" / f"leak{index}.png"
        copy.write_bytes((tmp_path / "p" / "train" / "a" / f"{index}.png").read_bytes())
    fixed = tmp_path / "fixed"
    result = invoke("audit", tmp_path / "p", "--out", tmp_path / "report", "--fix", fixed)
    assert result.exit_code == 1
    assert "LEAK test, class a: 3 of 11 are equal, byte for byte, to train" in result.stdout
    assert (tmp_path / "report" / "audit.png").is_file()
    files = [fixed / f"{name}.csv" for name in ("train", "test")]
    assert invoke("audit", *files).exit_code == 0
    run = tmp_path / "run"
    result = invoke(
        "train", f"folder:{tmp_path / 'p'}", "--epochs", 1, "--out", run, "--threads", 1
    )
    assert result.exit_code == 0, result.output
    assert "of 19 test images are equal, in every pixel, to train images" in result.stdout


def test_sixteen_bit_pictures_are_kept_apart(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for index in range(40):
        blocks = np.kron(rng.integers(1000, 61000, (4, 4)), np.ones((8, 8)))
        path = tmp_path / "p" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(blocks.astype(np.uint16)).save(path)
    result = invoke("split", tmp_path / "p", "--out", tmp_path / "out", "--fix")
    assert result.exit_code == 0, result.output
    assert len(rows(tmp_path / "out" / "train.csv")) == 28


def test_the_tables_name_the_files_from_where_they_are(tmp_path: Path) -> None:
    write_images(tmp_path / "p", {"a": 20, "b": 20}, side=16)
    (tmp_path / "far" / "away").mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "far" / "away")
    ids = tmp_path / "ids.csv"
    names = [f"{kind}/{index}.png" for kind in "ab" for index in range(20)]
    ids.write_text("\n".join(["filename,sha256", *(f"{n},{i}" for i, n in enumerate(names))]))
    for name, options in (("out", ()), ("ids", ("--ids", ids))):
        out = link / name
        result = invoke("split", tmp_path / "p", "--out", out, "--no-near", *options)
        assert result.exit_code == 0, result.output
        named = [out / row["filename"] for row in rows(out / "train.csv")]
        assert len(named) == 28
        assert all(path.is_file() for path in named)
    fixed = tmp_path / "fixed"
    result = invoke("audit", link / "out", "--no-near", "--fix", fixed)
    assert result.exit_code == 0, result.output
    assert all((fixed / row["filename"]).is_file() for row in rows(fixed / "test.csv"))


def test_the_groups_of_a_split_are_audited(tmp_path: Path) -> None:
    write_images(tmp_path / "p", {"a": 40, "b": 40}, side=16)
    for split, start, stop in (("train", 0, 30), ("val", 30, 34), ("test", 34, 40)):
        lines = [f"p/{kind}/{i}.png,{kind},{i // 10}" for kind in "ab" for i in range(start, stop)]
        (tmp_path / f"{split}.csv").write_text("\n".join(["filename,label,group", *lines]))
    files = [tmp_path / f"{name}.csv" for name in ("train", "val", "test")]
    for sources in ([tmp_path], files):
        result = invoke("audit", *sources, "--no-near")
        assert result.exit_code == 1
        assert "LEAK test, class a: 6 of 6 are of the same group as val" in result.stdout
        assert "against train" not in result.stdout


def test_the_published_split_by_command() -> None:
    folder = real_data("leak_audit")
    files = [folder / f"{name}.csv" for name in ("train", "val", "test")]
    result = invoke("audit", *files, "--ids", folder / "blobs.csv")
    assert result.exit_code == 1
    assert "LEAK test, class 1: 191 of 191 are equal, byte for byte, to train" in result.stdout
    assert "LEAK val, class 1: 96 of 96 are equal, byte for byte, to train" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["audit", "absent"], "unknown data set 'absent'"),
        (["audit", "one.csv", "two.csv"], "each must be called train, val or test"),
        (["audit", "list.csv"], "says of no image which split it is in"),
        (["audit", "digits", "--near", "65"], "near: expected 0 to 64, got 65"),
        (["audit", "digits", "--fix", "out"], "--fix: digits is no set of image files"),
        (["audit", "digits", "--group-pattern", "x"], "--group-pattern: digits is no set of image"),
        (["audit", "digits", "--group-column", "x"], "--group-column x: digits does not take this"),
        (["audit", "train.csv", "test.csv", "--split-column", "x"], "several files are the splits"),
        (
            ["split", ".", "--out", "out", "--group-column", "p"],
            "--group-column p: ., a folder, do",
        ),
        (
            ["split", "list.csv", "--out", "out", "--group-column", "p", "--group-pattern", "x"],
            "--group-pattern, --group-column: expected one of them, got both",
        ),
        (
            ["split", "list.csv", "--out", "out", "--seed", "-1"],
            "seed: expected a finite number from 0",
        ),
        (["split", "list.csv", "--out", "out", "--shares", "nan", ".5", ".5"], "shares: expected"),
        (["audit", "occupancy"], "occupancy+detection.zip not found"),
        (["split", "absent", "--out", "out"], "absent: expected a folder or a CSV file"),
        (["split", "list.csv", "--out", "out", "--shares", "1", "1", "1"], "shares: expected"),
        (["split", "list.csv", "--out", "out"], "class '0' has 1 examples"),
    ],
)
def test_bad_calls_write_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FASTLTC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FASTLTC_OFFLINE", "1")
    Image.new("L", (8, 8)).save("x.png")
    Path("list.csv").write_text("filename,label\nx.png,0\n")
    before = sorted(Path().iterdir())
    result = invoke(*arguments)
    assert result.exit_code == 1, result.output
    assert text in result.stderr
    assert result.stdout == ""
    assert sorted(Path().iterdir()) == before


def test_audit_of_a_time_series(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("\n".join(["time,a,out", *(f"{row},{row},{row / 2}" for row in range(400))]))
    given = ("--target", "out", "--window", 16)
    result = invoke("audit", f"csv:{path}", *given, "--out", tmp_path / "report")
    assert result.exit_code == 0, result.output
    assert "looked for: shared rows, equal sequences\nno leak found" in result.stdout
    assert sorted(one.name for one in (tmp_path / "report").iterdir()) == [
        "audit.json",
        "audit.txt",
    ]
    leaky = ("--stride", 4, "--split-by", "windows")
    result = invoke("audit", path, *given, *leaky, "--json")
    assert result.exit_code == 1, result.output
    report = json.loads(result.stdout)
    shared = {(one["split"], one["earlier"]): one for one in report["rows"]}
    assert shared["test", "train"]["shared"] > 200
    assert shared["test", "train"]["judged"] <= 400
    assert not any(one["shared"] for one in report["sequences"])
    result = invoke("audit", path, *given, "--fix", tmp_path)
    assert result.exit_code == 1
    assert "--fix: " in result.stderr
    result = invoke("audit", "digits", "--window", 4)
    assert result.exit_code == 1
    assert "--window: digits is no time series" in result.stderr


def test_audit_of_sequences_without_places(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {f"x_{name}": rng.random((10, 4, 2)) for name in ("train", "val", "test")}
    arrays |= {f"y_{name}": np.arange(10) % 2 for name in ("train", "val", "test")}
    arrays |= {f"{name}_lengths": np.full(10, 4) for name in ("train", "val", "test")}
    arrays["x_test"][:3] = arrays["x_train"][4:7]
    np.savez(tmp_path / "s.npz", **arrays)
    result = invoke("audit", f"npz:{tmp_path / 's.npz'}")
    assert result.exit_code == 1, result.output
    assert "looked for: equal sequences\n" in result.stdout
    assert "LEAK test: 3 of 10 sequences are equal to one of train" in result.stdout
