"""``physionet2012``: two days in intensive care, and whether the patient died in hospital."""

from __future__ import annotations

import csv
import io
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ...files import open_regular, read_bytes
from ..options import DataOptions
from ..partition import partition
from ..sets import DataSet, Split, check_splits
from ..tables import read_table
from ..windows import Windows, new_array
from .windows import find

URL = "https://physionet.org/content/challenge-2012/1.0.0/"
FEATURES = (
    *("Age", "Gender", "Height", "ICUType", "Weight"),
    *("ALP", "ALT", "AST", "Albumin", "BUN", "Bilirubin", "Cholesterol", "Creatinine", "DiasABP"),
    *("FiO2", "GCS", "Glucose", "HCO3", "HCT", "HR", "K", "Lactate", "MAP", "MechVent", "Mg"),
    *("NIDiasABP", "NIMAP", "NISysABP", "Na", "PaCO2", "PaO2", "Platelets", "RespRate", "SaO2"),
    *("SysABP", "Temp", "TroponinI", "TroponinT", "Urine", "WBC", "pH"),
)
_PLACES = {feature: place for place, feature in enumerate(FEATURES)}
# Hours that times are rounded to.
ROUND = 0.016
# A record has some 1,000 lines of 20 characters.
_MOST_RECORD, _MOST_RECORDS = 1 << 20, 1 << 16
_NAME = re.compile(r"(?:.*/)?(\d{6})\.txt")


def load_physionet2012(options: DataOptions) -> DataSet:
    """Set a of the PhysioNet/CinC challenge of 2012: 41 measurements at irregular times.

    Times are rounded to 0.016 h and values at one time averaged; -1, which no measurement has, is
    none. Values are scaled by least and most over all records, as published; what was not measured
    is 0 and ``measured`` says so. Time steps are hours since the row before, 1 in
    the first. Of the records in the
    order of their numbers, a fifth is the test split (scikit-learn's ``train_test_split`` with seed
    42), and a tenth of the others, stratified, the validation split, which is not published.

    Raises:
        DataError: a file is missing or damaged.

    Source: I. Silva et al., "Predicting in-hospital mortality of ICU patients", Computing in
    Cardiology 39, 2012 (ODC-By); R. Hasani et al., "Closed-form continuous-time neural networks",
    Nature Machine Intelligence 4, 2022.
    """
    from sklearn.model_selection import train_test_split

    remedy = f"Get set-a.tar.gz and Outcomes-a.txt from {URL} (--data-root DIR)."
    path = find(("set-a.tar.gz", "set-a"), options, remedy)
    died = _outcomes(find(("Outcomes-a.txt",), options, remedy))
    records = sorted(_records(path))
    strange = next((name for name, _ in records if name not in died), None)
    if strange is not None or not records:
        raise DataError(f"{path}: no outcome of record {strange}" if records else f"{path}: empty")
    read = [_record(name, text, path) for name, text in records]
    counts = [len(times) for times, _ in read]
    values = new_array((sum(counts), len(FEATURES)), np.float32)
    np.concatenate([own for _, own in read], out=values)
    measured = ~np.isnan(values)
    least, most = np.fmin.reduce(values, axis=0), np.fmax.reduce(values, axis=0)
    # One value only, or none at all: a measurement that the records do not have.
    span = np.where(most > least, most - least, 1)
    values[:] = np.nan_to_num((values - np.nan_to_num(least)) / span)
    timespans = np.concatenate([np.diff(times, prepend=times[0] - 1) for times, _ in read])
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    window, lengths = max(counts), np.array(counts)
    labels = np.array([died[name] for name, _ in records])
    whole = Split(
        Windows(values, starts, window, lengths),  # type: ignore[arg-type]
        labels,
        Windows(timespans.astype(np.float32), starts, window, lengths),  # type: ignore[arg-type]
        tuple(name for name, _ in records),
        lengths,
        Windows(measured, starts, window, lengths),  # type: ignore[arg-type]
    )
    rest, test = train_test_split(np.arange(len(records)), test_size=0.2, random_state=42)
    where = np.array(partition(labels[rest].tolist(), (0.9, 0.1, 0), options.split_seed))
    parts = {"train": rest[where == "train"], "val": rest[where == "val"], "test": test}
    remarks = (
        f"{len(records):,} records; values are scaled by least and most over all of them",
        f"validation: 10 % of the training records, stratified, seed {options.split_seed}",
    )
    splits = {name: whole.take(part).drawn() for name, part in parts.items()}
    return check_splits(
        DataSet(
            "physionet2012",
            ("survived", "died"),
            splits,
            str(path),
            positive=1,
            remarks=remarks,
            features=FEATURES,
            time_unit=3600.0,
        )
    )


def _outcomes(path: Path) -> dict[str, int]:
    table = read_table(path)
    names = table.column(table.need("RecordID", (), "records", "its header"))
    place = table.need("In-hospital_death", (), "outcomes", "its header")
    found = table.numbers(place)
    wrong = np.flatnonzero(~np.isin(found, (0, 1)))
    if len(wrong):
        raise table.error(int(wrong[0]), place, f"expected 0 or 1, got {found[wrong[0]]:g}")
    return dict(zip(names, found.astype(int).tolist(), strict=True))


def _records(path: Path) -> Iterator[tuple[str, str]]:
    """The number and the text of each record, of a folder or of a packed one."""
    try:
        if path.is_dir():
            for one in path.iterdir():
                found = _NAME.fullmatch(one.name)
                if found:
                    yield found[1], read_bytes(one, _MOST_RECORD).decode()
            return
        with open_regular(path) as file, tarfile.open(fileobj=file, mode="r:gz") as packed:
            for count, member in enumerate(packed):
                found = _NAME.fullmatch(member.name)
                if count > _MOST_RECORDS or member.size > _MOST_RECORD:
                    raise ValueError(f"{member.name!r:.80}: more or larger records than there are")
                opened = packed.extractfile(member) if found and member.isreg() else None
                if found and opened is not None:
                    yield found[1], opened.read(_MOST_RECORD).decode()
    # Damaged archives raise TarError, EOFError, zlib.error, OSError and others.
    except Exception as error:
        raise DataError(f"{path}: not a readable set of records: {error}") from None


def _record(name: str, text: str, path: Path) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Times in hours, and values of all measurements at each, NaN where there is none."""
    found: list[tuple[float, int, float]] = []
    for line, row in enumerate(csv.reader(io.StringIO(text)), 1):
        if len(row) != 3:
            raise DataError(f"{path}: {name}.txt, line {line}: expected Time,Parameter,Value")
        place = _PLACES.get(row[1])
        if place is None:
            continue  # the header, the number of the record
        try:
            hours, minutes = map(int, row[0].split(":"))
            value = float(row[2])
        except ValueError:
            text = f"expected HH:MM, a name and a number, got {','.join(row)!r:.80}"
            raise DataError(f"{path}: {name}.txt, line {line}: {text}") from None
        if value != -1 and np.isfinite(value):
            found.append((round((hours + minutes / 60) / ROUND) * ROUND, place, value))
    if not found:
        raise DataError(f"{path}: {name}.txt: no measurement in it")
    of, measurement, number = map(np.array, zip(*found, strict=True))
    times, row_of = np.unique(of, return_inverse=True)
    sums, counts = np.zeros((2, len(times), len(FEATURES)))
    np.add.at(sums, (row_of, measurement), number)
    np.add.at(counts, (row_of, measurement), 1)
    with np.errstate(invalid="ignore"):
        return times, (sums / counts).astype(np.float32)
