"""Data sets of papers: small files in the published format, and the real ones where they are."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fastltc.jobs.data import SPLITS, DataError, DataSet, load_data
from fastltc.jobs.data.published import ett, events, physionet, weather
from job_support import real_data


def sizes(data: DataSet) -> list[int]:
    return [len(data.splits[name]) for name in SPLITS]


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cache, and nothing is downloaded."""
    monkeypatch.setenv("FASTLTC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FASTLTC_OFFLINE", "1")


def rollouts(folder: Path, count: int, frames: int) -> dict[str, np.ndarray]:
    """Frames of 3 numbers: the recording, the frame and its square."""
    folder.mkdir(parents=True)
    made = {}
    for place in range(count):
        row = np.arange(frames + place, dtype=np.float32)
        made[f"r{place:03}.npy"] = np.stack([np.full_like(row, place), row, row**2], axis=1)
    for name, array in made.items():
        np.save(folder / name, array)
    return made


def test_walker2d(tmp_path: Path) -> None:
    made = rollouts(tmp_path / "walker", 40, 200)
    data = load_data("walker2d", tmp_path)
    assert (data.task, data.per_step, data.input_shape) == ("regression", True, (64, 3))
    assert data.targets == data.features == ("x0", "x1", "x2")
    kept = np.random.RandomState(891374)
    order = list(range(40))
    np.random.RandomState(125487).shuffle(order)
    recordings = {
        name: [place for place in range(40) if (data.splits[name].inputs[:, 0, 0] == place).any()]
        for name in SPLITS
    }
    assert recordings == {
        "train": sorted(order[10:]),
        "val": sorted(order[6:10]),
        "test": sorted(order[:6]),
    }
    for part in data.splits.values():
        np.testing.assert_array_equal(part.labels[..., 1], part.inputs[..., 1] + 1)
        steps = np.diff(part.inputs[..., 1], axis=1)
        np.testing.assert_array_equal(part.timespans[:, 1:], steps)
    # The generator goes frame by frame through the training files first.
    first = [row for row in range(199 + order[10]) if kept.rand() < 0.9]
    np.testing.assert_array_equal(data.splits["train"].inputs[0, :, 1], first[:64])
    np.testing.assert_array_equal(data.splits["train"].inputs[1, :, 1], first[16:80])
    # The same as one file.
    values = np.concatenate(list(made.values()))
    lengths = [len(one) for one in made.values()]
    np.savez(tmp_path / "walker2d.npz", values=values, lengths=lengths, names=list(made))
    other = load_data("walker2d", tmp_path / "walker2d.npz")
    np.testing.assert_array_equal(other.splits["val"].inputs, data.splits["val"].inputs)


def test_cheetah(tmp_path: Path) -> None:
    rollouts(tmp_path / "cheetah", 26, 100)
    data = load_data("cheetah", tmp_path)
    recordings = [sorted(set(data.splits[name].inputs[:, 0, 0])) for name in SPLITS]
    assert recordings == [list(range(15, 25)), list(range(5)), list(range(5, 15))]
    train = data.splits["train"]
    assert train.inputs[:9, 0, 1].tolist() == [0, 10, 20, 30, 40, 50, 60, 70, 80]
    assert train.inputs.shape[1:] == (32, 3)
    np.testing.assert_array_equal(train.labels[..., 1], train.inputs[..., 1] + 1)
    assert train.timespans is None


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        ("nothing", r"walker2d.npz not found. Looked for:\n.*walker\.zip.*--data-root DIR"),
        ("text", r"r001.npy: not a readable .npy file"),
        ("objects", r"r001.npy: not a readable .npy file: holds Python objects"),
        ("claims", r"r001.npy: not a readable .npy file: .*got 0"),
        ("width", r"expected recordings \[frames, numbers\] of one width"),
        ("nan", r"r001.npy has infinite or NaN values"),
        ("few", r"too few or too short recordings for the train split"),
        ("lengths", r"walker2d.npz: expected as many names as lengths"),
    ],
)
def test_bad_rollouts(tmp_path: Path, harm: str, message: str) -> None:
    folder = tmp_path / "walker"
    if harm not in ("nothing", "lengths"):
        rollouts(folder, 30, 20 if harm == "few" else 100)
    one = folder / "r001.npy"
    if harm == "text":
        one.write_text("walk")
    elif harm == "objects":
        np.save(one, np.array([{}], dtype=object), allow_pickle=True)
    elif harm == "claims":
        with open(one, "wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 3)}
            np.lib.format.write_array_header_1_0(file, header)
    elif harm == "width":
        np.save(one, np.zeros((100, 4), np.float32))
    elif harm == "nan":
        np.save(one, np.full((100, 3), np.nan, np.float32))
    elif harm == "lengths":
        arrays = {"values": np.zeros((9, 3)), "lengths": [4, 4], "names": ["a", "b"]}
        np.savez(tmp_path / "walker2d.npz", **arrays)
    with pytest.raises(DataError, match=f"(?s){message}"):
        load_data("walker2d", tmp_path)


TRAFFIC = "Metro_Interstate_Traffic_Volume.csv"


def traffic(rows: int = 1000) -> bytes:
    lines = ["holiday,temp,rain_1h,snow_1h,clouds_all,weather_main,weather_description,date_time,"
             "traffic_volume"]  # fmt: skip
    for row in range(rows):
        day, hour = divmod(row, 24)
        moment = f"2013-{1 + day // 28:02}-{1 + day % 28:02} {hour:02}:00:00"
        holiday = "None" if day % 7 else "Some Day"
        lines.append(f"{holiday},{280 + row % 10},0.5,0.25,{row % 100},Clear,sky,{moment},{row}")
    return "\n".join(lines).encode()


def publish(monkeypatch: pytest.MonkeyPatch, files: dict[str, str], content: bytes) -> None:
    name = next(iter(files))
    monkeypatch.setitem(files, name, hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize("packed", [False, True])
def test_traffic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool) -> None:
    content = traffic()
    publish(monkeypatch, weather.TRAFFIC_FILES, content)
    if packed:
        # As UCI has it.
        with zipfile.ZipFile(tmp_path / weather.TRAFFIC.file_name, "w") as archive:
            archive.writestr(f"{TRAFFIC}.gz", gzip.compress(content))
    else:
        (tmp_path / TRAFFIC).write_bytes(content)
    data = load_data("traffic", tmp_path)
    assert (data.targets, data.per_step, data.input_shape) == (("volume",), True, (32, 7))
    count = len(range(0, 1000 - 32, 4))
    assert sizes(data) == [count - int(0.1 * count) - int(0.15 * count), 24, 36]
    order = np.random.RandomState(23489).permutation(count)
    scale = np.float32(np.arange(1000).std())
    place = order[24]
    expected = (np.arange(32) + 4 * place - 499.5) / scale
    np.testing.assert_allclose(data.splits["test"].labels[0, :, 0], expected, rtol=1e-5)
    rows = np.arange(32) + 4 * place
    inputs = data.splits["test"].inputs[0]
    np.testing.assert_array_equal(inputs[:, 0], rows // 24 % 7 != 0)
    np.testing.assert_allclose(inputs[:, 1], rows % 10 - 4.5, atol=1e-4)
    np.testing.assert_allclose(inputs[:, 6], np.sin(rows % 24 * np.pi / 24), rtol=1e-6)
    leak = next(one for one in data.remarks if one.startswith("LEAK") and "the test split" in one)
    assert "are also in training sequences" in leak
    if packed:
        assert (tmp_path / "cache" / "traffic" / TRAFFIC).read_bytes() == content


def test_traffic_by_time_does_not_leak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(content: bytes) -> DataSet:
        publish(monkeypatch, weather.TRAFFIC_FILES, content)
        (tmp_path / TRAFFIC).write_bytes(content)
        return load_data("traffic", tmp_path, split_by="time")

    data = load(traffic())
    assert not any("LEAK" in remark for remark in data.remarks)
    rows = [{int(name.rpartition(":")[2]) for name in data.splits[s].names} for s in SPLITS]
    assert max(rows[0]) + 31 <= 750 < min(rows[1])
    assert max(rows[1]) + 31 <= 850 < min(rows[2])
    lines = traffic().decode().splitlines()
    changed = [line if row < 800 else f"{line}00" for row, line in enumerate(lines)]
    other = load("\n".join(changed).encode())
    # Nothing in training depends on rows that are to come.
    for field in ("inputs", "labels"):
        one, two = (getattr(each.splits["train"], field) for each in (data, other))
        np.testing.assert_array_equal(one, two)
    with pytest.raises(DataError, match="--split-by recording: traffic is one recording"):
        load_data("traffic", tmp_path, split_by="recording")


def ozone(rows: int = 400) -> bytes:
    lines = []
    for row in range(rows):
        values = ["?" if (row + column) % 50 == 0 else str(row % 40) for column in range(72)]
        lines.append(f"1/{1 + row % 28}/1998,{','.join(values)},{int(row % 9 == 0)}.")
    return "\n".join(lines).encode()


def test_ozone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, weather.OZONE_FILES, ozone())
    (tmp_path / "eighthr.data").write_bytes(ozone())
    data = load_data("ozone", tmp_path)
    assert (data.classes, data.positive, data.per_step) == (("ordinary", "ozone"), 1, True)
    count = len(range(0, 400 - 32, 4))
    assert sizes(data) == [count - int(0.1 * count) - int(0.15 * count), 9, 13]
    place = np.random.RandomState(23489).permutation(count)[0]
    rows = np.arange(32) + 4 * place
    np.testing.assert_array_equal(data.splits["val"].labels[0], rows % 9 == 0)
    raw = np.add.outer(np.arange(400), np.arange(72))
    values = np.where(raw % 50 == 0, 0, np.arange(400)[:, None] % 40).astype(np.float64)
    scaled = (values - values.mean()) / values.std()
    np.testing.assert_allclose(data.splits["val"].inputs[0], scaled[rows], rtol=1e-5, atol=1e-6)
    apart = load_data("ozone", tmp_path, split_by="time")
    assert not any("LEAK" in remark for remark in apart.remarks)
    content = ozone() + b"\n1/1/1999,1"
    publish(monkeypatch, weather.OZONE_FILES, content)
    (tmp_path / "eighthr.data").write_bytes(content)
    with pytest.raises(DataError, match="expected a date, 72 measurements and a class"):
        load_data("ozone", tmp_path)


@pytest.mark.parametrize("name", ["traffic", "ozone", "etth1"])
def test_another_file_is_refused(tmp_path: Path, name: str) -> None:
    file = {"traffic": TRAFFIC, "ozone": "eighthr.data", "etth1": "ETTh1.csv"}[name]
    with pytest.raises(DataError, match=r"not found. Looked for"):
        load_data(name, tmp_path)
    (tmp_path / file).write_text("other")
    with pytest.raises(DataError, match=f"{file}: damaged or another version"):
        load_data(name, tmp_path)


def test_xor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_MADE", {"train": (500, 1234984), "test": (300, 48736)})
    data = load_data("xor")
    assert sizes(data) == [450, 50, 300]
    assert (data.classes, data.per_step, data.input_shape) == (("even", "odd"), False, (32, 1))
    # Bit by bit, as it is published.
    rng = np.random.RandomState(48736)
    part = data.splits["test"]
    for place in range(300):
        length, ones, last, count, made = rng.randint(2, 32), 0, -1, 0, []
        for _ in range(length):
            count += 1
            bit = int(rng.randint(0, 2))
            ones += bit
            if bit != last:
                made.append((bit, count))
                count = 0
            last = bit
        if count:
            made.append((last, count))
        assert part.lengths[place] == len(made)
        assert part.labels[place] == ones % 2
        for step, (bit, count) in enumerate(made):
            assert part.inputs[place, step, 0] == bit
            assert part.timespans[place, step] == np.float32(count / 32)
        assert not part.inputs[place, len(made) :].any()


def test_events_of_images() -> None:
    rng = np.random.default_rng(0)
    states = rng.random((40, 100)) < rng.random((40, 1))
    event = np.ones_like(states)
    event[:, 1:] = states[:, 1:] != states[:, :-1]
    bits, timespans, lengths = events._of_changes(states, event, 16)
    for row in range(40):
        made, last, count = [], None, 0
        for state in states[row].tolist():
            count += 1
            if state != last:
                made.append((state, count))
                count = 0
            last = state
        assert lengths[row] == min(len(made), 16)
        for step, (state, count) in enumerate(made[:16]):
            assert (bits[row, step, 0], timespans[row, step]) == (state, np.float32(count / 16))
        assert not timespans[row, lengths[row] :].any()


RECORD = """Time,Parameter,Value
00:00,RecordID,{name}
00:00,Age,{age}
00:00,Height,-1
00:07,HR,{rate}
00:07,HR,{rate}2
00:07,Temp,36
{hours}:30,HR,60
"""


def records(count: int = 60) -> dict[str, str]:
    return {
        f"{132000 + place}": RECORD.format(
            name=132000 + place, age=20 + place, rate=7, hours=1 + place % 40
        )
        for place in range(count)
    }


def outcomes(folder: Path, made: dict[str, str]) -> None:
    rows = [f"{name},1,{int(name) % 2}" for name in made]
    (folder / "Outcomes-a.txt").write_text("\n".join(["RecordID,SAPS-I,In-hospital_death", *rows]))


def pack(path: Path, made: dict[str, str]) -> None:
    with tarfile.open(path, "w:gz") as packed:
        for name, text in made.items():
            member = tarfile.TarInfo(f"set-a/{name}.txt")
            member.size = len(text)
            packed.addfile(member, io.BytesIO(text.encode()))


@pytest.mark.parametrize("packed", [False, True])
def test_physionet2012(tmp_path: Path, packed: bool) -> None:
    from sklearn.model_selection import train_test_split

    made = records()
    outcomes(tmp_path, made)
    if packed:
        pack(tmp_path / "set-a.tar.gz", made)
    else:
        (tmp_path / "set-a").mkdir()
        for name, text in made.items():
            (tmp_path / "set-a" / f"{name}.txt").write_text(text)
    data = load_data("physionet2012", tmp_path)
    assert sizes(data) == [44, 4, 12]
    assert (len(data.features), data.input_shape, data.positive) == (41, (3, 41), 1)
    _, test = train_test_split(np.arange(60), test_size=0.2, random_state=42)
    part = data.splits["test"]
    assert part.names == tuple(str(132000 + place) for place in test)
    assert part.measured is not None
    rate, age = data.features.index("HR"), data.features.index("Age")
    for place, inputs, measured, timespans, label in zip(
        test, part.inputs, part.measured, part.timespans, part.labels, strict=True
    ):
        assert label == place % 2
        np.testing.assert_allclose(inputs[0, age], place / 59, rtol=1e-6)
        # The mean of 7 and 72, of 39.5 to 60.
        assert inputs[:, rate].tolist() == [0, 0, 1]
        assert measured[:, rate].tolist() == [False, True, True]
        assert measured.sum() == 4
        assert timespans[0] == 1
        rounded = 0.016 * round((1 + place % 40 + 0.5) / 0.016)
        np.testing.assert_allclose(timespans[1:], [0.112, rounded - 0.112], rtol=1e-5)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        ("nothing", r"set-a.tar.gz not found.*physionet.org"),
        ("torn", r"set-a.tar.gz: not a readable set of records"),
        ("text", r"132005.txt, line 3: expected HH:MM, a name and a number, got '1,Age,x'"),
        ("columns", r"132005.txt, line 2: expected Time,Parameter,Value"),
        ("empty", r"132005.txt: no measurement in it"),
        ("unknown", r"no outcome of record 999999"),
        ("large", r"set-a.tar.gz: not a readable .*more or larger records"),
        ("outcome", r"Outcomes-a.txt, line 3: column 'In-hospital_death': expected 0 or 1, got 2"),
    ],
)
def test_bad_records(tmp_path: Path, harm: str, message: str) -> None:
    made = records()
    outcomes(tmp_path, made)
    bad = {
        "text": "Time,Parameter,Value\n00:00,RecordID,1\n1,Age,x\n",
        "columns": "Time,Parameter,Value\n00:00\n",
        "empty": "Time,Parameter,Value\n00:00,Age,-1\n",
    }
    if harm in bad:
        made["132005"] = bad[harm]
    if harm == "unknown":
        made["999999"] = made["132005"]
    if harm == "large":
        made["132005"] += "\n" * (1 << 20)
    if harm != "nothing":
        pack(tmp_path / "set-a.tar.gz", made)
    if harm == "torn":
        content = (tmp_path / "set-a.tar.gz").read_bytes()
        (tmp_path / "set-a.tar.gz").write_bytes(content[: len(content) // 2])
    if harm == "outcome":
        text = (tmp_path / "Outcomes-a.txt").read_text().splitlines()
        (tmp_path / "Outcomes-a.txt").write_text("\n".join([*text[:2], text[2][:-1] + "2"]))
    with pytest.raises(DataError, match=f"(?s){message}"):
        load_data("physionet2012", tmp_path)


def test_etth1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hours = np.arange("2016-07-01", "2016-07-26", dtype="datetime64[h]")
    lines = ["date,HUFL,OT", *(f"{h!s:.10} {str(h)[11:]}:00:00,{i},{2 * i + i % 3}"
                               for i, h in enumerate(hours))]  # fmt: skip
    content = "\n".join(lines).encode()
    (tmp_path / "ETTh1.csv").write_bytes(content)
    monkeypatch.setattr(ett, "CHECKSUM", f"sha256:{hashlib.sha256(content).hexdigest()}")
    monkeypatch.setattr(ett, "ENDS", (0, 300, 400, 500))
    data = load_data("etth1", tmp_path, window=48, horizon=24)
    assert (data.task, data.horizon, data.targets) == ("forecasting", 24, ("HUFL", "OT"))
    assert sizes(data) == [300 - 48 - 24 + 1, 100 - 24 + 1, 100 - 24 + 1]
    scale = np.arange(300).std()
    for name, first in (("train", 48), ("val", 300), ("test", 400)):
        part = data.splits[name]
        assert part.inputs.shape[1:] == (48, 2)
        hours_ahead = part.labels[..., 0] * scale + 149.5
        np.testing.assert_allclose(hours_ahead[0], np.arange(first, first + 24), rtol=1e-5)
        last = {"train": 300, "val": 400, "test": 500}[name]
        np.testing.assert_allclose(hours_ahead[-1, -1], last - 1, rtol=1e-5)
        np.testing.assert_allclose(
            part.inputs[:, -1, 0] * scale + 149.5, hours_ahead[:, 0] - 1, rtol=1e-5, atol=1e-3
        )


def test_the_real_rollouts() -> None:
    folder = real_data("series/walker2d.npz").parent
    assert sizes(load_data("walker2d", folder)) == [9684, 1272, 1937]
    assert sizes(load_data("cheetah", folder)) == [970, 485, 970]


def test_the_real_weather() -> None:
    folder = real_data("series/eighthr.data").parent
    assert sizes(load_data("traffic", folder)) == [9033, 1204, 1806]
    days = load_data("ozone", folder)
    assert sizes(days) == [471, 62, 93]


def test_the_real_transformer() -> None:
    folder = real_data("series/ETTh1.csv").parent
    data = load_data("etth1", folder, window=336)
    assert sizes(data) == [8209, 2785, 2785]
    # What is never forecast: the last value, whose error papers print as that of a naive model.
    part = data.splits["test"]
    error = np.mean((part.labels - part.inputs[:, -1:]) ** 2)
    assert 1.2 < error < 1.4


@pytest.mark.slow
def test_the_real_records() -> None:
    folder = real_data("series/set-a.tar.gz").parent
    data = load_data("physionet2012", folder)
    assert sum(sizes(data)) == 3996
    assert sizes(data)[2] == 800
    assert data.splits["train"].inputs.min() == 0
    assert data.splits["train"].inputs.max() == 1
    assert physionet.FEATURES.index("Weight") == 4
