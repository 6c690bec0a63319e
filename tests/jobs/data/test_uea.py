"""Files of the UEA archive, as aeon reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastltc.jobs.data import SPLITS, DataError, load_data

HEAD = """@problemName made
@timeStamps false
@missing {missing}
@univariate false
@dimensions 2
@equalLength false
{answers}
@data
"""


def write(
    path: Path, count: int = 20, *, classes: bool = True, missing: bool = False, bad: str = ""
) -> Path:
    answers = "@classLabel true a b" if classes else "@targetlabel true"
    lines = [HEAD.format(answers=answers, missing=str(missing).lower()).rstrip("\n")]
    for place in range(count):
        rows = range(3 + place % 4)
        first = ",".join("?" if missing and row == 1 else str(place + row) for row in rows)
        answer = "ab"[place % 2] if classes else str(0.5 * place)
        lines.append(f"{first}:{','.join(str(row) for row in rows)}:{answer}")
    if bad:
        lines[-2] = bad
    path.write_text("\n".join(lines) + "\n")
    return path


def test_without_aeon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "aeon", None)
    for name in ("basicmotions", f"ts:{write(tmp_path / 's.ts')}"):
        with pytest.raises(DataError, match=r"aeon reads it: pip install 'fastltc\[aeon\]'"):
            load_data(name)


def test_sequences_of_unequal_length(tmp_path: Path) -> None:
    pytest.importorskip("aeon")
    data = load_data(f"ts:{write(tmp_path / 's.ts', 40)}")
    assert (data.classes, data.input_shape, data.per_step) == (("a", "b"), (6, 2), False)
    assert [len(data.splits[name]) for name in SPLITS] == [28, 4, 8]
    for part in data.splits.values():
        for one, length, label in zip(part.inputs, part.lengths, part.labels, strict=True):
            place = int(one[0, 0])
            assert (length, label) == (3 + place % 4, place % 2)
            assert one[:length].tolist() == [[place + row, row] for row in range(length)]
    gaps = load_data(f"ts:{write(tmp_path / 'g.ts', 40, missing=True)}", missing="mask")
    part = gaps.splits["test"]
    assert not part.measured[:, 1, 0].any()
    np.testing.assert_array_equal(part.inputs[:, 1, 0], part.inputs[:, 0, 0])


def test_the_splits_of_the_archive_and_values(tmp_path: Path) -> None:
    pytest.importorskip("aeon")
    write(tmp_path / "Made_TRAIN.ts", 30, classes=False)
    write(tmp_path / "Made_TEST.ts", 10, classes=False)
    for name in ("Made_TRAIN.ts", "Made_TEST.ts"):
        data = load_data(f"ts:{tmp_path / name}")
        assert [len(data.splits[split]) for split in SPLITS] == [27, 3, 10]
        assert (data.task, data.targets) == ("regression", ("value",))
    part = data.splits["test"]
    np.testing.assert_array_equal(part.labels[:, 0], 0.5 * part.inputs[:, 0, 0])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("1,2,3:1,x,3:a", r"s.ts: not a .ts file that aeon reads"),
        ("1,2,3:1,2:a", r"s.ts"),
        ("1,2,3:a", r"s.ts"),
        ("1,2,inf:1,2,3:a", r"s.ts, sequence 19: expected finite numbers, got infinity"),
        (
            "1,2,?:1,2,3:a",
            r"s.ts, sequence 19: expected finite numbers, got a gap, which --m",
        ),
    ],
)
def test_ragged_and_wrong_files(tmp_path: Path, bad: str, message: str) -> None:
    pytest.importorskip("aeon")
    with pytest.raises(DataError, match=message):
        load_data(f"ts:{write(tmp_path / 's.ts', bad=bad)}")


def test_files_that_are_none(tmp_path: Path) -> None:
    pytest.importorskip("aeon")
    with pytest.raises(DataError, match=r"s.ts: no such file"):
        load_data(f"ts:{tmp_path / 's.ts'}")
    (tmp_path / "s.ts").write_bytes(bytes(range(256)))
    with pytest.raises(DataError, match=r"s.ts: not a .ts file that aeon reads"):
        load_data(f"ts:{tmp_path / 's.ts'}")


def test_the_sets_that_come_with_aeon() -> None:
    pytest.importorskip("aeon")
    vowels, motions = load_data("japanesevowels"), load_data("basicmotions")
    assert [len(vowels.splits[name]) for name in SPLITS] == [243, 27, 370]
    assert [len(motions.splits[name]) for name in SPLITS] == [36, 4, 40]
    assert (len(vowels.classes), vowels.input_shape) == (9, (29, 12))
    assert vowels.splits["test"].lengths.min() == 7
    assert (motions.input_shape, motions.splits["test"].lengths) == ((100, 6), None)
