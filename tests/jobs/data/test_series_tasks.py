"""Time series of a user's own: values, recordings, forecasts, gaps, and how they are split."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastltc.jobs.data import IGNORED, SPLITS, DataError, DataOptions, load_data
from fastltc.jobs.data.series import read_unlabelled, sequences


def write(path: Path, header: str, rows: list[list[Any]]) -> Path:
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def trips(
    path: Path,
    count: int = 20,
    *,
    rows: Callable[[int], int] = lambda trip: 10 + trip,
    shuffled: bool = False,
) -> Path:
    """Trips of unequal length; the speed of row r of trip t is 100 t + r, and its power twice."""
    table = []
    for trip in range(count):
        for row in range(rows(trip)):
            speed = 100 * trip + row
            kind = "car" if trip % 2 else "van"
            table.append([60 * row, f"t{trip}", f"d{trip // 2}", speed, 2 * speed, kind])
    if shuffled:
        # As a logger writes it: by time, the trips in between each other.
        table.sort(key=lambda row: row[0])
    return write(path, "time,trip,driver,speed,power,label", table)


def rows_of(data: Any, split: str) -> set[float]:
    part = data.splits[split]
    lengths = np.full(len(part), data.input_shape[0]) if part.lengths is None else part.lengths
    pairs = zip(part.inputs[..., 0], lengths, strict=True)
    return {value for one, length in pairs for value in one[:length].tolist()}


def test_values_of_each_step(tmp_path: Path) -> None:
    path = write(
        tmp_path / "s.csv",
        "time,a,b,out,y",
        [[60 * row, row, -row, row % 7 + 0.5, 3 * row] for row in range(100)],
    )
    data = load_data(f"csv:{path}", target="out, y", window=10)
    assert (data.task, data.per_step, data.classes) == ("regression", True, ())
    assert (data.targets, data.features) == (("out", "y"), ("a", "b"))
    train = data.splits["train"]
    assert (train.labels.shape, train.labels.dtype) == ((7, 10, 2), np.float32)
    np.testing.assert_array_equal(train.labels[..., 1], 3 * train.inputs[..., 0])
    # Without a fraction it would be a class.
    assert load_data(f"csv:{path}", target="y", window=10).targets == ("y",)
    test = data.splits["test"]
    assert (test.labels.shape, test.lengths, test.measured) == ((2, 10, 2), None, None)


def test_rows_of_a_value_are_judged_once(tmp_path: Path) -> None:
    table = [[row, row, 0.1 * row] for row in range(107)]
    path = write(tmp_path / "s.csv", "t,a,out", table)
    data = load_data(f"csv:{path}", target="out", window=9)
    for name, rows in (("val", 11), ("test", 21)):
        split = data.splits[name]
        judged = ~np.isnan(split.labels[..., 0])
        assert judged.sum() == rows
        assert len(set(split.inputs[..., 0][judged])) == rows


@pytest.mark.parametrize("shuffled", [False, True])
def test_recordings_are_whole_and_in_one_split(tmp_path: Path, shuffled: bool) -> None:
    path = trips(tmp_path / "s.csv", shuffled=shuffled)
    data = load_data(
        f"csv:{path}", recording_column="trip", target="power", inputs="speed", window=8
    )
    assert data.features == ("speed",)
    seen: dict[str, set[str]] = {}
    for name in SPLITS:
        part = data.splits[name]
        assert part.inputs.shape[1:] == (8, 1)
        assert part.lengths is None
        seen[name] = {window.rpartition(":")[0] for window in part.names}
        np.testing.assert_array_equal(part.timespans, np.ones_like(part.timespans))
        # No sequence crosses from one trip to the next.
        assert np.ptp(part.inputs[..., 0] // 100, axis=1).max() == 0
    assert [len(seen[name]) for name in SPLITS] == [14, 2, 4]
    assert not (seen["train"] | seen["val"]) & seen["test"]
    everything = set().union(*(rows_of(data, name) for name in SPLITS))
    assert everything == {100 * trip + row for trip in range(20) for row in range(10 + trip)}
    assert any("whole recordings, not stratified, seed 0" in remark for remark in data.remarks)
    assert f"{path}#t3:1" in set().union(*(data.splits[name].names for name in SPLITS))
    other = load_data(
        f"csv:{path}", recording_column="trip", target="power", window=8, split_seed=1,
        inputs="speed",
    )  # fmt: skip
    assert set(other.splits["test"].names) != set(data.splits["test"].names)


def test_a_class_of_each_recording(tmp_path: Path) -> None:
    path = trips(tmp_path / "s.csv")
    data = load_data(
        f"csv:{path}", recording_column="trip", label_per="recording", inputs="speed,power"
    )
    assert (data.classes, data.per_step) == (("car", "van"), False)
    assert data.input_shape == (29, 2)
    for name in SPLITS:
        part = data.splits[name]
        assert part.labels.shape == (len(part),)
        assert part.lengths is not None
        for one, length, label in zip(part.inputs, part.lengths, part.labels, strict=True):
            trip = int(one[0, 0]) // 100
            assert (length, data.classes[label]) == (10 + trip, "car" if trip % 2 else "van")
            assert not one[length:].any()
    assert [np.bincount(data.splits[name].labels).tolist() for name in SPLITS] == [
        [7, 7],
        [1, 1],
        [2, 2],
    ]
    # Windows of a recording have its class.
    cut = load_data(
        f"csv:{path}", recording_column="trip", label_per="recording", inputs="speed", window=5
    )
    assert cut.input_shape == (5, 1)
    assert len(cut.splits["train"]) > 3 * 14


def test_a_value_of_each_recording_and_of_each_window(tmp_path: Path) -> None:
    table = [[row, f"r{of}", row + of, of / 2] for of in range(10) for row in range(6 + of % 3)]
    path = write(tmp_path / "s.csv", "time,run,a,age", table)
    data = load_data(f"csv:{path}", recording_column="run", label_per="recording", target="age")
    assert data.splits["train"].labels.shape == (7, 1)
    assert (data.task, data.per_step) == ("regression", False)
    for part in data.splits.values():
        np.testing.assert_array_equal(part.labels[:, 0], part.inputs[:, 0, 0] / 2)
    last = load_data(f"csv:{path}", label_per="window", target="a", window=4, inputs="age",
                     recording_column="run", stride=1)  # fmt: skip
    for part in last.splits.values():
        first = np.array([int(name.rpartition(":")[2]) for name in part.names])
        np.testing.assert_array_equal(part.labels[:, 0], first + 2 + 2 * part.inputs[:, 0, 0])


def test_groups_of_recordings_stay_together(tmp_path: Path) -> None:
    path = trips(tmp_path / "s.csv", 40)
    options = {"recording_column": "trip", "target": "power", "inputs": "speed", "window": 5}
    data = load_data(f"csv:{path}", group_column="driver", **options)
    drivers = {name: {value // 200 for value in rows_of(data, name)} for name in SPLITS}
    assert not drivers["train"] & drivers["test"]
    assert len(drivers["train"] | drivers["val"] | drivers["test"]) == 20
    alone = load_data(f"csv:{path}", **options)
    drivers = {name: {value // 200 for value in rows_of(alone, name)} for name in SPLITS}
    assert drivers["train"] & drivers["test"]


def test_recordings_are_cut_at_the_same_moments(tmp_path: Path) -> None:
    table = [
        [10 * shop + day, f"s{shop}", day, 5 * day + shop] for shop in range(3) for day in range(60)
    ]
    path = write(tmp_path / "s.csv", "time,shop,day,sold", table)
    data = load_data(
        f"csv:{path}", recording_column="shop", target="sold", split_by="time", window=4
    )
    times: dict[str, list[int]] = {name: [] for name in SPLITS}
    for name in SPLITS:
        part = data.splits[name]
        lengths = np.full(len(part), 4) if part.lengths is None else part.lengths
        for window, one, length in zip(part.names, part.inputs, lengths, strict=True):
            shop = int(window.rpartition(":")[0][-1])
            times[name] += (one[:length, 0] + 10 * shop).tolist()
    assert max(times["train"]) < min(times["val"])
    assert max(times["val"]) < min(times["test"])
    assert any("at the same moments in all recordings" in remark for remark in data.remarks)


def test_a_short_recording_is_filled_up(tmp_path: Path) -> None:
    path = trips(tmp_path / "s.csv", 12, rows=lambda trip: 3 + 2 * (trip % 4))
    data = load_data(f"csv:{path}", recording_column="trip", target="power", inputs="speed")
    # No longer than the longest, whatever the window would be.
    assert data.input_shape == (9, 1)
    part = data.splits["train"]
    assert part.lengths is not None
    beyond = np.arange(9) >= part.lengths[:, None]
    assert np.isnan(part.labels[beyond]).all()
    assert not np.isnan(part.labels[~beyond]).any()
    assert not part.timespans[beyond].any()


def forecast(path: Path, rows: int = 100) -> Path:
    return write(
        path,
        "time,load,sun,holiday",
        [[3600 * row, row, row % 24, row % 7 // 6] for row in range(rows)],
    )


def test_a_forecast(tmp_path: Path) -> None:
    path = forecast(tmp_path / "s.csv", 200)
    data = load_data(f"csv:{path}", horizon=3, window=8, target="load", known="holiday,sun")
    assert (data.task, data.horizon, data.known) == ("forecasting", 3, ("holiday", "sun"))
    assert data.features == ("load", "sun", "holiday")
    assert not data.per_step
    for name, first, last in (("train", 0, 140), ("val", 140, 160), ("test", 160, 200)):
        part = data.splits[name]
        assert part.labels.shape == (len(part), 3, 1)
        assert part.future is not None
        assert part.future.shape == (len(part), 3, 2)
        wanted = part.inputs[:, -1:, 0] + np.arange(1, 4)
        judged = ~np.isnan(part.labels[..., 0])
        np.testing.assert_array_equal(part.labels[..., 0][judged], wanted[judged])
        np.testing.assert_array_equal(part.future[..., 0], wanted % 7 // 6)
        np.testing.assert_array_equal(part.future[..., 1], wanted % 24)
        # No input and no answer of another split.
        assert part.inputs[..., 0].min() == first
        assert np.nanmax(part.labels) == last - 1
        if name == "train":
            assert len(part) == 140 - 8 - 3 + 1
            assert judged.all()
        else:
            # Each row is judged once.
            answers = part.labels[..., 0][judged].tolist()
            assert answers == list(range(first + 8, last))


def test_a_forecast_of_all_columns(tmp_path: Path) -> None:
    path = forecast(tmp_path / "s.csv")
    data = load_data(f"csv:{path}", horizon=2, window=4, known="holiday", stride=5)
    assert data.targets == ("load", "sun")
    assert len(data.splits["train"]) == 13 + 1
    assert load_data(f"csv:{path}", horizon=2, window=4, known="holiday",
                     categorical="holiday").known == ("holiday=0", "holiday=1")  # fmt: skip


def test_recordings_too_short_to_forecast_are_left_out(tmp_path: Path) -> None:
    path = trips(tmp_path / "s.csv", 20, rows=lambda trip: 3 + trip)
    data = load_data(
        f"csv:{path}", recording_column="trip", target="power", inputs="speed", horizon=6, window=9,
        stride=3,
    )  # fmt: skip
    assert any(part.lengths is not None for part in data.splits.values())
    for part in data.splits.values():
        lengths = np.full(len(part), 9) if part.lengths is None else part.lengths
        for one, length, labels in zip(part.inputs, lengths, part.labels, strict=True):
            assert one[0, 0] // 100 >= 4
            known = ~np.isnan(labels[:, 0])
            ahead = 2 * (one[length - 1, 0] + np.arange(1, 7))
            np.testing.assert_array_equal(labels[known, 0], ahead[known])


GAPS = [
    # time, run, a, b, out
    [0, "x", "", 1, 0.5],
    [1, "x", 2, "NaN", ""],
    [2, "x", "?", "", 1.5],
    [3, "x", 4, 5, 2.5],
    [0, "y", "", 7, 3.5],
    [1, "y", 8, "n/a", 4.5],
    [2, "y", "", 9, 5.5],
    [3, "y", 10, 9, 6.5],
]
HELD = [[0, 1], [2, 1], [2, 1], [4, 5], [0, 7], [8, 7], [8, 9], [10, 9]]


def gaps(path: Path) -> Path:
    """The rows of `GAPS` three times, as the three splits."""
    rows = [[time, run + name, *rest, name] for name in SPLITS for time, run, *rest in GAPS]
    return write(path, "time,run,a,b,out,split", rows)


@pytest.mark.parametrize("missing", ["hold", "mask"])
def test_gaps_hold_the_last_value_of_the_recording(tmp_path: Path, missing: str) -> None:
    path = gaps(tmp_path / "s.csv")
    data = load_data(f"csv:{path}", recording_column="run", target="out", missing=missing, window=4)
    part = data.splits["test"]
    np.testing.assert_array_equal(part.inputs.reshape(8, 2), HELD)
    np.testing.assert_array_equal(np.isnan(part.labels.ravel()), [0, 1, 0, 0, 0, 0, 0, 0])
    known = [[row[2] not in ("", "?"), row[3] not in ("", "NaN", "n/a")] for row in GAPS]
    if missing == "mask":
        assert part.measured is not None
        np.testing.assert_array_equal(part.measured.reshape(8, 2), known)
    else:
        assert part.measured is None
    share = f"{sum(not one for row in known for one in row) * 3} of 48 inputs"
    assert any(share in remark and "6 before the first value" in remark for remark in data.remarks)


def test_rows_with_gaps_are_left_out_and_their_time_passes(tmp_path: Path) -> None:
    path = gaps(tmp_path / "s.csv")
    data = load_data(
        f"csv:{path}", recording_column="run", target="out", missing="skip", window=4, time_unit=1.0
    )
    assert data.splits["train"].inputs.tolist() == [[[4, 5]], [[10, 9]]]
    assert any("18 rows with gaps are left out" in remark for remark in data.remarks)
    table = [[row, "" if row % 5 == 3 else row, 2 * row] for row in range(100)]
    path = write(tmp_path / "t.csv", "time,a,out", table)
    data = load_data(f"csv:{path}", target="out", missing="skip", window=8)
    part = data.splits["train"]
    np.testing.assert_array_equal(part.inputs[0, :, 0], [0, 1, 2, 4, 5, 6, 7, 9])
    np.testing.assert_array_equal(part.timespans[0], [1, 1, 1, 2, 1, 1, 1, 2])
    np.testing.assert_array_equal(part.labels[..., 0], 2 * part.inputs[..., 0])


def test_holding_reaches_over_the_parts_that_are_worked_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same whatever the size of the parts."""
    from fastltc.jobs.data import cutting, rows, windows

    path = gaps(tmp_path / "s.csv")
    options = {"recording_column": "run", "target": "out", "missing": "mask", "window": 3}
    once = load_data(f"csv:{path}", **options)
    monkeypatch.setattr(windows.chunks, "__defaults__", (3,))
    for module in (cutting, rows):
        monkeypatch.setattr(module, "CHUNK", 3)
    parts = load_data(f"csv:{path}", **options)
    for name in SPLITS:
        for field in ("inputs", "labels", "timespans", "measured"):
            one, other = (getattr(data.splits[name], field) for data in (once, parts))
            np.testing.assert_array_equal(one, other)


def test_classes_that_are_not_known_are_not_judged(tmp_path: Path) -> None:
    table = [[row, row, ("on", "off", "")[row % 3]] for row in range(90)]
    path = write(tmp_path / "s.csv", "time,a,label", table)
    data = load_data(f"csv:{path}", missing="hold", window=9)
    assert data.classes == ("off", "on")
    for part in data.splits.values():
        np.testing.assert_array_equal(part.labels == IGNORED, part.inputs[..., 0] % 3 == 2)


def names(path: Path, rows: int = 60) -> Path:
    table = [[row, ("sun", "rain", "snow")[row // 2 % 3], row, row % 2] for row in range(rows)]
    return write(path, "time,sky,a,label", table)


def test_names_are_inputs(tmp_path: Path) -> None:
    path = names(tmp_path / "s.csv")
    data = load_data(f"csv:{path}", categorical="sky", window=6)
    assert data.features == ("sky=rain", "sky=snow", "sky=sun", "a")
    np.testing.assert_array_equal(data.splits["train"].inputs[0, :, 2], [1, 1, 0, 0, 0, 0])
    codes = load_data(f"csv:{path}", categorical="sky", encoding="codes", window=6)
    assert codes.features == ("sky=rain|snow|sun", "a")
    np.testing.assert_array_equal(codes.splits["train"].inputs[0, :, 0], [2, 2, 0, 0, 1, 1])
    # A model finds its inputs in other files, whatever names are there.
    other = write(tmp_path / "o.csv", "time,sky,a,label", [[0, "sun", 1, 0], [1, "hail", 2, 1]])
    one_hot = load_data(f"csv:{other}", features=data.features, whole=True)
    assert one_hot.splits["test"].inputs[0].tolist() == [[0, 0, 1, 1], [0, 0, 0, 2]]
    with pytest.raises(
        DataError, match=r"line 3: .*'sky': expected one of rain, snow, sun, got 'h"
    ):
        load_data(f"csv:{other}", features=codes.features, whole=True)


def test_inputs_without_answers(tmp_path: Path) -> None:
    path = names(tmp_path / "s.csv", 20)
    rows = read_unlabelled(path, ["sky=sun", "a"], DataOptions())
    split = sequences(rows, 8, 1.0)
    assert split.inputs.shape == (3, 8, 2)
    assert (split.labels == 0).sum() == 20


def test_rows_without_times(tmp_path: Path) -> None:
    table = [[f"r{of}", row, 2 * row + of] for of in range(6) for row in range(8)]
    path = write(tmp_path / "s.csv", "run,a,out", table)
    data = load_data(f"csv:{path}", recording_column="run", target="out", window=4)
    assert data.time_unit == 0
    assert data.splits["train"].timespans is None
    assert data.kind == "series"


def test_windows_at_random_are_called_a_leak(tmp_path: Path) -> None:
    path = forecast(tmp_path / "s.csv", 400)
    data = load_data(f"csv:{path}", target="load", window=16, stride=4, split_by="windows")
    assert [len(data.splits[name]) for name in SPLITS] == [68, 10, 19]
    assert any(
        remark.startswith("LEAK") and "rows of the test split are also in training" in remark
        for remark in data.remarks
    )
    for part in data.splits.values():
        assert not np.isnan(part.labels).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "nothing"}, r"no column 'nothing' \(--target\)"),
        ({"target": "power,power"}, r"--target: 'power' is named twice"),
        ({"target": "label"}, r"line 2: column 'label': expected a number, got 'van'"),
        ({"target": "time"}, r"--target time: that column of .* has the times"),
        ({"target": "power", "inputs": "power"}, r"--inputs power: .*would be given the answer"),
        ({"target": "power", "label_column": "label"}, r"--label-column label: classes are pred"),
        ({"known": "speed"}, r"--known speed: known in advance of what"),
        (
            {"horizon": 3, "known": "power", "target": "power"},
            r"--known power: .*would be given the answer",
        ),
        ({"horizon": 3, "label_per": "window"}, r"--label-per window: a forecast of --horizon 3"),
        ({"label_per": "recording"}, r"--label-per recording: name the column of the recordings"),
        ({"recording_column": "nobody"}, r"no column 'nobody' \(--recording-column\)"),
        ({"categorical": "nobody"}, r"no column 'nobody' \(--categorical\)"),
        ({"target": "power"}, r"line 2: column 'trip': expected a number, got 't0'; names are in"),
        (
            {"target": "power", "inputs": "speed"},
            r"line 12: the time is before that of the row above; .*\(--recording-column\)",
        ),
        (
            {"target": "power", "inputs": "speed", "recording_column": "trip", "horizon": 60},
            r"the longest recording of the .* split has \d+ rows; expected more than the 60 to",
        ),
        (
            {"recording_column": "label", "inputs": "speed", "target": "power"},
            r"line 23: the time is before that of the row above; expected rows in the order",
        ),
        ({"group_column": "driver", "target": "power"}, r"--group-column driver: .* does not take"),
        ({"missing": "drop"}, r"missing: expected one of error, hold, mask, skip, got 'drop'"),
    ],
)
def test_bad_options(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    path = trips(tmp_path / "s.csv")
    with pytest.raises(DataError, match=message):
        load_data(f"csv:{path}", **options)


@pytest.mark.parametrize(
    ("bad", "options", "message"),
    [
        ({"b": "inf"}, {"missing": "hold"}, r"line 7: column 'b': expected a finite number, got"),
        ({"b": ""}, {}, r"line 7: column 'b': expected a number, got ''; gaps are read with --mis"),
        ({"out": ""}, {}, r"line 7: column 'out': expected a number, got ''; gaps are read"),
        ({"b": ""}, {"horizon": 2, "known": "b", "missing": "hold"}, r"line 7: column 'b': expect"),
        ({"time": "2020-01-01"}, {}, r"line 7: column 'time': expected seconds as in the rows abo"),
        ({"run": ""}, {"recording_column": "run"}, r"line 7: column 'run': expected a name, got n"),
        ({"time": "1"}, {}, r"line 7: the time is before that of the row above"),
        ({"time": "inf"}, {}, r"line 7: column 'time': expected a finite number"),
    ],
)
def test_bad_rows(
    tmp_path: Path, bad: dict[str, str], options: dict[str, Any], message: str
) -> None:
    header = ["time", "run", "b", "out"]
    rows = [[row, row // 20, row % 5, row * 0.5] for row in range(60)]
    for name, text in bad.items():
        rows[5][header.index(name)] = text
    path = write(tmp_path / "s.csv", ",".join(header), rows)
    with pytest.raises(DataError, match=message) as raised:
        load_data(f"csv:{path}", target="out", window=5, **options)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (
            ["2020-01-01 00:00", "2020-01-01T00:01Z"],
            r"line 3: .*without an offset .*got a time with",
        ),
        (
            ["2020-01-01T00:00Z", "2020-01-01 00:01"],
            r"line 3: .*with an offset .*got a time without",
        ),
        (["2020-01-01", "60"], r"line 3: .*got seconds: '60'"),
        (["2020-01-01", "noon"], r"line 3: .*expected seconds or a date and time"),
    ],
)
def test_times_of_two_kinds(tmp_path: Path, times: list[str], message: str) -> None:
    path = write(tmp_path / "s.csv", "time,a,label", [[time, 1, 1] for time in times])
    with pytest.raises(DataError, match=message):
        load_data(f"csv:{path}")


def test_times_with_offsets_are_moments(tmp_path: Path) -> None:
    """The clock goes back an hour; time does not."""
    clock = ["02:00:00+02:00", "02:30:00+02:00", "02:00:00+01:00", "02:30:00+01:00"]
    table = [[f"2020-10-25T{time}", row, row % 2] for row, time in enumerate(clock)]
    path = write(tmp_path / "s.csv", "time,a,label", table)
    data = load_data(f"csv:{path}", whole=True)
    assert data.time_unit == 1800
    np.testing.assert_array_equal(data.splits["test"].timespans, np.ones((1, 4)))


def test_what_cannot_be_learned_or_judged(tmp_path: Path) -> None:
    rows = [[row, row, 1.5, "", f"r{row // 20}"] for row in range(100)]
    path = write(tmp_path / "s.csv", "time,a,flat,gone,run", rows)
    with pytest.raises(DataError, match=r"'flat' is 1.5 in all training rows"):
        load_data(f"csv:{path}", target="flat", inputs="a", window=5)
    with pytest.raises(DataError, match=r"the train split has no value of 'gone'"):
        load_data(f"csv:{path}", target="gone", inputs="a", window=5, missing="hold")
    with pytest.raises(DataError, match=r"column 'gone' has no value in any row; leave it out"):
        load_data(f"csv:{path}", target="a", inputs="gone", window=5, missing="mask")
    with pytest.raises(DataError, match=r"no row without a gap is left"):
        load_data(f"csv:{path}", target="a", inputs="gone", window=5, missing="skip")
    one = write(tmp_path / "one.csv", "time,a,b,run", [[row, row, row, "x"] for row in range(50)])
    with pytest.raises(DataError, match=r"one recording only, .*; --split-by time cuts along time"):
        load_data(f"csv:{one}", target="b", recording_column="run")
    with pytest.raises(
        DataError, match=r"val part has 5 rows, fewer than the window of 8 .* and 4"
    ):
        load_data(f"csv:{one}", target="b", inputs="a", window=8, horizon=4)


def test_a_class_or_a_group_that_changes_in_a_recording(tmp_path: Path) -> None:
    path = trips(tmp_path / "s.csv")
    text = path.read_text().splitlines()
    text[5] = text[5].replace("van", "car").replace("d0", "d1")
    path.write_text("\n".join(text))
    options = {"recording_column": "trip", "inputs": "speed", "label_per": "recording"}
    with pytest.raises(DataError, match=r"line 6: column 'label': expected van as in the rows of"):
        load_data(f"csv:{path}", **options)
    with pytest.raises(DataError, match=r"line 6: column 'driver': expected one group in a rec"):
        load_data(f"csv:{path}", **options, group_column="driver")
    with pytest.raises(DataError, match=r"line 3: column 'power': expected 0 as in the rows .* 2"):
        load_data(f"csv:{path}", **options, target="power")


def test_a_class_in_one_row_of_each_recording(tmp_path: Path) -> None:
    rows = [
        [row, f"r{of}", of + row, "ab"[of % 2] if row == of % 3 else ""]
        for of in range(20)
        for row in range(5)
    ]
    path = write(tmp_path / "s.csv", "time,run,a,label", rows)
    data = load_data(f"csv:{path}", recording_column="run", label_per="recording", missing="hold")
    for part in data.splits.values():
        np.testing.assert_array_equal(part.labels, part.inputs[:, 0, 0] % 2)
    assert sum(len(part) for part in data.splits.values()) == 20
