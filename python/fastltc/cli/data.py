"""The commands around splits: ``fastltc split`` and ``fastltc audit``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..jobs.defaults import NEAR_BITS, SHARES
from ..jobs.options import options_of
from ..jobs.reading import ReadingOptions
from . import completion
from .options import JSON, echo, field_option, options, path_option, print_json

if TYPE_CHECKING:
    from ..jobs.data import DataOptions, DataSet
    from ..jobs.data.audit_report import Item, Report
    from ..jobs.data.overlap import SeriesReport

# What both commands take: how items are found, and which of them are near.
_SEARCH = (
    field_option("file_column"),
    field_option("label_column"),
    field_option("group_column"),
    click.option(
        "--group-pattern",
        metavar="REGEX",
        help="What of a file's name is its group: the first (...) of a regular expression.",
    ),
    click.option("--data-root", metavar="DIR", help="Folder that names in a CSV are relative to."),
    path_option(
        "--ids",
        "CSV",
        "Table of content ids (filename, sha256 ...): equal ids are equal bytes. "
        "The files are then not read.",
    ),
    click.option(
        "--near",
        type=int,
        default=NEAR_BITS,
        show_default=True,
        metavar="BITS",
        help="Bits of 64 in which perceptual hashes of near duplicates may differ.",
    ),
    click.option("--no-near", is_flag=True, help="Do not look for near duplicates."),
    JSON,
)
# How time series are read, which is what an audit of them is about.
_SERIES = tuple(
    name
    for name in options_of(ReadingOptions)
    if name
    not in ("file_column", "label_column", "group_column", "split_column", "image_size", "channels")
)


@click.command()
@click.argument(
    "sources", metavar="DATA...", nargs=-1, required=True, shell_complete=completion.a_file
)
@field_option("split_column")
@path_option(
    "--out", "DIR", "Folder for audit.txt, audit.json and audit.png, the pairs side by side."
)
@path_option("--fix", "DIR", "Folder for train.csv, val.csv and test.csv without the leaks.")
@options(*_SEARCH, *(field_option(name) for name in _SERIES))
def audit(
    sources: Sequence[str],
    split_column: str | None,
    out: Path | None,
    fix: Path | None,
    as_json: bool,
    **search: Any,
) -> None:
    """Look for leaks between the splits of DATA: exit status 1 where there are any.

    DATA is a folder with train, val and test in it, a CSV file with a column split, the files
    train.csv val.csv test.csv, or anything that `fastltc train` takes. Looked for are equal
    bytes, equal decoded pixels, near duplicates, and one group (a patient) in two splits; of time
    series rows that are in two splits, and equal sequences.
    """
    from ..jobs.data import DataError
    from ..jobs.data import audit as auditing
    from ..jobs.data.overlap import audit_series

    given = {name: search.pop(name) for name in _SERIES}
    reading = {name: value for name, value in given.items() if value is not None}
    series = _series(sources, split_column, search, reading)
    if series is not None:
        if fix is not None:
            raise DataError(
                f"--fix: {sources[0]} is a time series; split it otherwise (--split-by)"
            )
        found = audit_series(series)
        if out is not None:
            _write(out, _texts(found), _REPORT)
        _show(found, as_json)
        raise click.exceptions.Exit(int(found.leaks))
    if reading:
        option = next(iter(reading)).replace("_", "-")
        raise DataError(f"--{option}: {sources[0]} is no time series")
    items = _splits(sources, split_column, search)
    if fix is not None and any(item.path is None for item in items):
        raise DataError(
            f"--fix: {sources[0]} is no set of image files, which the tables in {fix} could name"
        )
    bits = _near_bits(search)
    report = auditing.audit(items, near_bits=bits)
    if out is not None:
        _write(out, _report_files(report), _REPORT)
    _show(report, as_json)
    if fix is not None:
        tables = _tables(auditing.fix(items, near_bits=bits), fix)
        # The report of an earlier split in that folder is not of these tables.
        _write(fix, tables, _TABLES if out == fix else (*_TABLES, *_REPORT))
        echo(f"written without leaks: {fix}", err=True)
    if report.leaks:
        raise click.exceptions.Exit(1)


@click.command()
@click.argument("source", metavar="DATA", shell_complete=completion.a_file)
@path_option(
    "--out", "DIR", "Folder for train.csv, val.csv, test.csv and the report.", required=True
)
@click.option(
    "--shares",
    type=(float, float, float),
    default=SHARES,
    show_default=True,
    metavar="TRAIN VAL TEST",
    help="Shares of the splits.",
)
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Seed.")
@click.option("--fix", is_flag=True, help="Keep duplicates on one side, as if they were a group.")
@options(*_SEARCH)
def split(
    source: str,
    out: Path,
    shares: tuple[float, float, float],
    seed: int,
    fix: bool,
    as_json: bool,
    **search: Any,
) -> None:
    """Split DATA into train.csv, val.csv and test.csv: stratified, seeded, whole groups.

    DATA is a folder with a folder per class, or a CSV file of images and classes. The split is
    audited: leaks are reported, and the exit status is 1 where there are any; --fix keeps
    duplicates on one side. Train on it with: fastltc train csv:DIR
    """
    from dataclasses import replace

    from ..jobs.data import audit as auditing
    from ..jobs.data.partition import partition
    from ..jobs.data.sets import SPLITS

    items = _listed(source, search)
    bits = _near_bits(search)
    groups: list[int] | list[str | None] | None = None
    if fix:
        groups = auditing.linked(items, near_bits=bits)
    elif any(item.group for item in items):
        groups = [item.group for item in items]
    found = partition([item.label for item in items], shares, seed, groups)
    items = [replace(item, split=where) for item, where in zip(items, found, strict=True)]
    report = auditing.audit(items, near_bits=bits)
    _write(out, {**_tables(items, out), **_report_files(report)}, (*_TABLES, *_REPORT))
    _show(report, as_json)
    if not as_json:
        for name in SPLITS:
            part = [item.label for item in items if item.split == name]
            counts = ", ".join(f"{part.count(kind)} {kind}" for kind in sorted(set(part)))
            echo(f"{out / name}.csv: {len(part)} ({counts})")
    if report.leaks:
        if not fix:
            echo("run again with --fix to keep duplicates on one side", err=True)
        raise click.exceptions.Exit(1)


def _near_bits(search: dict[str, Any]) -> int | None:
    return None if search["no_near"] else search["near"]


def _reading(search: dict[str, Any], split_column: str | None = None) -> DataOptions:
    from ..jobs.data import DataOptions

    names = ("file_column", "label_column", "group_column", "data_root")
    return DataOptions(**{name: search[name] for name in names}, split_column=split_column)


def _listed(
    source: str, search: dict[str, Any], split_column: str | None = None, word: str = ""
) -> list[Item]:
    from ..jobs.data import DataError, image_files
    from ..jobs.data.audit import with_ids

    kind, colon, place = source.partition(":")
    path = Path(place if colon and kind in ("folder", "csv") else source).expanduser()
    reading, group_pattern = _reading(search, split_column), search["group_pattern"]
    if group_pattern is not None and reading.group_column is not None:
        raise DataError("--group-pattern, --group-column: expected one of them, got both")
    if path.is_file() or (
        path.is_dir() and any((path / f"{name}.csv").is_file() for name in ("train", "test"))
    ):
        listed = image_files.list_table(path, reading, word)
    elif path.is_dir():
        reading.only((), f"{source}, a folder,")
        listed = image_files.list_folder(path)
    else:
        raise DataError(f"{source}: expected a folder or a CSV file, got nothing")
    if group_pattern is not None:
        listed = image_files.group_by_pattern(listed, group_pattern)
    return listed if search["ids"] is None else with_ids(listed, search["ids"])


def _splits(sources: Sequence[str], split_column: str | None, search: dict[str, Any]) -> list[Item]:
    from ..jobs.data import DataError
    from ..jobs.data.tables import split_word

    if len(sources) == 1:
        source = sources[0]
        place = Path(source.partition(":")[2] or source).expanduser()
        if source.startswith("npz:") or not place.exists():
            return _loaded(source, split_column, search)
        listed = _listed(source, search, split_column)
    else:
        if split_column is not None:
            raise DataError(f"--split-column {split_column}: several files are the splits")
        listed = []
        for source in sources:
            word = split_word(Path(source).stem)
            if word is None:
                text = "of several files each must be called train, val or test"
                raise DataError(f"{source}: {text}")
            listed += _listed(source, search, word=word)
    unknown = next((item for item in listed if not item.split), None)
    if unknown is not None:
        raise DataError(
            f"{sources[0]}: says of no image which split it is in ({unknown.name}); "
            "make one with: fastltc split"
        )
    return listed


def _series(
    sources: Sequence[str], split_column: str | None, search: dict[str, Any], given: dict[str, Any]
) -> DataSet | None:
    """The data set, where it is a time series."""
    from dataclasses import replace

    from ..jobs.data import load_data
    from ..jobs.data.registry import series_source

    if len(sources) > 1:
        return None
    reading = replace(_reading(search, split_column), **given)
    source = series_source(sources[0], reading)
    data = None if source is None else load_data(source, options=reading)
    return data if data is not None and data.kind == "series" else None


def _loaded(source: str, split_column: str | None, search: dict[str, Any]) -> list[Item]:
    from ..jobs.data import DataError, find_source, load_data
    from ..jobs.data.audit import items_of

    find_source(source)
    for name in ("group_pattern", "ids"):
        if search[name] is not None:
            option = f"--{name.replace('_', '-')}"
            raise DataError(f"{option}: {source} is no set of image files, got {search[name]}")
    return items_of(load_data(source, options=_reading(search, split_column)))


def _show(report: Report | SeriesReport, as_json: bool) -> None:
    if as_json:
        print_json(report.to_dict())
    else:
        echo(report.to_text())


# All that an audit and a split may leave in a folder; what is not made anew would be taken for part
# of the new.
_REPORT = ("audit.txt", "audit.json", "audit.png")
_TABLES = ("train.csv", "val.csv", "test.csv")


def _write(out: Path, contents: Mapping[str, bytes], whole: Sequence[str]) -> None:
    from .._files import write_all

    out.mkdir(parents=True, exist_ok=True)
    files = {out / name: content for name, content in contents.items()}
    write_all(files, [out / name for name in whole])


def _report_files(report: Report) -> dict[str, bytes]:
    from ..jobs import plots

    pairs = plots.leak_pairs(report)
    pictures = {"audit.png": plots.contact_sheet(pairs)} if pairs else {}
    return {**_texts(report, examples=50), **pictures}


def _texts(report: Report | SeriesReport, **how: int) -> dict[str, bytes]:
    return {
        "audit.txt": (report.to_text(**how) + "\n").encode(),
        "audit.json": (json.dumps(report.to_dict(), indent=2) + "\n").encode(),
    }


def _tables(items: Sequence[Item], out: Path) -> dict[str, bytes]:
    """A table of the files of the items, for each split that is not empty."""
    from ..jobs.data.sets import SPLITS
    from ..jobs.data.tables import format_table

    # Without links: the parent of a folder that is one is not where ".." leads.
    place = out.resolve()
    folders: dict[Path, Path] = {}

    def name_of(path: Path) -> str:
        if path.parent not in folders:
            folders[path.parent] = path.parent.resolve()
        return os.path.relpath(folders[path.parent] / path.name, place)

    grouped = any(item.group for item in items)
    header = ["filename", "label", *(["group"] if grouped else [])]
    tables = {}
    for name in SPLITS:
        rows = [
            [name_of(item.file), item.label, *([item.group or ""] if grouped else [])]
            for item in items
            if item.split == name
        ]
        if rows:
            tables[f"{name}.csv"] = format_table(header, rows)
    return tables
