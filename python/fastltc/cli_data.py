"""The commands around splits: ``fastltc split`` and ``fastltc audit``."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from .data.audit import Item, Report
    from .data.image_files import Listed

_COLUMNS = (
    click.option("--file-column", metavar="NAME", help="Column of a CSV file with the images."),
    click.option("--label-column", metavar="NAME", help="Column with the classes."),
    click.option("--group-column", metavar="NAME", help="Column of patients, lesions, ..."),
    click.option(
        "--group-pattern",
        metavar="REGEX",
        help="What of a file's name is its group: the first (...) of a regular expression.",
    ),
    click.option("--data-root", metavar="DIR", help="Folder that names in a CSV are relative to."),
    click.option(
        "--ids",
        type=click.Path(path_type=Path),
        metavar="CSV",
        help="Table of content ids (filename, sha256 ...): equal ids are equal bytes. "
        "The files are then not read.",
    ),
    click.option(
        "--near",
        type=int,
        default=6,
        show_default=True,
        metavar="BITS",
        help="Bits of 64 in which perceptual hashes of near duplicates may differ.",
    ),
    click.option("--no-near", is_flag=True, help="Do not look for near duplicates."),
    click.option("--json", "as_json", is_flag=True, help="Print JSON."),
)


def _columns(command: click.decorators.FC) -> click.decorators.FC:
    for option in reversed(_COLUMNS):
        command = option(command)
    return command


@click.command()
@click.argument("sources", metavar="DATA...", nargs=-1, required=True)
@click.option("--split-column", metavar="NAME", help="Column with train, val or test.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder for audit.txt, audit.json and audit.png, the pairs side by side.",
)
@click.option(
    "--fix",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder for train.csv, val.csv and test.csv without the leaks.",
)
@_columns
def audit(
    sources: Sequence[str],
    split_column: str | None,
    out: Path | None,
    fix: Path | None,
    near: int,
    no_near: bool,
    as_json: bool,
    ids: Path | None,
    group_pattern: str | None,
    **columns: str | None,
) -> None:
    """Look for leaks between the splits of DATA: exit status 1 where there are any.

    DATA is a folder with train, val and test in it, a CSV file with a column split, the files
    train.csv val.csv test.csv, or anything that `fastltc train` takes. Looked for are equal
    bytes, equal decoded pixels, near duplicates, and one group (a patient) in two splits.
    """
    from .data import audit as auditing

    items = _splits(sources, split_column, group_pattern, ids, columns)
    bits = None if no_near else near
    report = auditing.audit(items, near_bits=bits)
    _write_report(report, out)
    _show(report, as_json)
    if fix is not None:
        _write_splits(auditing.fix(items, near_bits=bits), fix)
        click.echo(f"written without leaks: {fix}", err=True)
    if report.leaks:
        raise click.exceptions.Exit(1)


@click.command()
@click.argument("source", metavar="DATA")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder for train.csv, val.csv, test.csv and the report.",
)
@click.option(
    "--shares",
    type=(float, float, float),
    default=(0.7, 0.1, 0.2),
    show_default=True,
    metavar="TRAIN VAL TEST",
    help="Shares of the splits.",
)
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Seed.")
@click.option("--fix", is_flag=True, help="Keep duplicates on one side, as if they were a group.")
@_columns
def split(
    source: str,
    out: Path,
    shares: tuple[float, float, float],
    seed: int,
    fix: bool,
    near: int,
    no_near: bool,
    as_json: bool,
    ids: Path | None,
    group_pattern: str | None,
    **columns: str | None,
) -> None:
    """Split DATA into train.csv, val.csv and test.csv: stratified, seeded, whole groups.

    DATA is a folder with a folder per class, or a CSV file of images and classes. The split is
    audited: leaks are reported, and the exit status is 1 where there are any; --fix keeps
    duplicates on one side. Train on it with: fastltc train csv:DIR
    """
    from dataclasses import replace

    from .data import audit as auditing
    from .data.partition import partition
    from .data.sets import SPLITS

    items = _items(_listed(source, group_pattern, columns), ids)
    bits = None if no_near else near
    groups: list[int] | list[str | None] | None = None
    if fix:
        groups = auditing.linked(items, near_bits=bits)
    elif any(item.group is not None for item in items):
        groups = [item.group for item in items]
    found = partition([item.label for item in items], shares, seed, groups)
    items = [replace(item, split=where) for item, where in zip(items, found, strict=True)]
    report = auditing.audit(items, near_bits=bits)
    _write_splits(items, out)
    _write_report(report, out)
    _show(report, as_json)
    if not as_json:
        for name in SPLITS:
            part = [item.label for item in items if item.split == name]
            counts = ", ".join(f"{part.count(kind)} {kind}" for kind in sorted(set(part)))
            click.echo(f"{out / name}.csv: {len(part)} ({counts})")
    if report.leaks:
        if not fix:
            click.echo("run again with --fix to keep duplicates on one side", err=True)
        raise click.exceptions.Exit(1)


def _listed(source: str, group_pattern: str | None, columns: dict[str, str | None]) -> list[Listed]:
    from .data import DataError, DataOptions, image_files

    kind, colon, place = source.partition(":")
    path = Path(place if colon and kind in ("folder", "csv") else source).expanduser()
    options = DataOptions(**columns)  # type: ignore[arg-type]
    if path.is_file() or (
        path.is_dir() and any((path / f"{name}.csv").is_file() for name in ("train", "test"))
    ):
        listed = image_files.list_table(path, options)
    elif path.is_dir():
        listed = image_files.list_folder(path)
    else:
        raise DataError(f"{source}: expected a folder or a CSV file, got nothing")
    return listed if group_pattern is None else image_files.group_by_pattern(listed, group_pattern)


def _splits(
    sources: Sequence[str],
    split_column: str | None,
    group_pattern: str | None,
    ids: Path | None,
    columns: dict[str, str | None],
) -> list[Item]:
    from dataclasses import replace

    from .data import DataError, find_source, load_data
    from .data.audit import items_of
    from .data.image_files import split_word

    columns = {**columns, "split_column": split_column}
    if len(sources) == 1:
        source = sources[0]
        if not Path(source.partition(":")[2] or source).expanduser().exists():
            find_source(source)
            return items_of(load_data(source, columns["data_root"]))
        if source.startswith("npz:"):
            return items_of(load_data(source))
        listed = _listed(source, group_pattern, columns)
    else:
        listed = []
        for source in sources:
            word = split_word(Path(source).stem)
            if word is None:
                raise DataError(
                    f"{source}: of several files each must be called train, val or test"
                )
            part = _listed(source, group_pattern, columns)
            listed += [replace(item, split=word) for item in part]
    unknown = next((item for item in listed if item.split is None), None)
    if unknown is not None:
        raise DataError(
            f"{sources[0]}: says of no image which split it is in ({unknown.name}); "
            "make one with: fastltc split"
        )
    return _items(listed, ids)


def _items(listed: Sequence[Listed], ids: Path | None) -> list[Item]:
    from .data.audit import Item, with_ids

    items = [
        Item(item.name, item.split or "", item.label, path=item.path, group=item.group)
        for item in listed
    ]
    return items if ids is None else with_ids(items, ids)


def _show(report: Report, as_json: bool) -> None:
    click.echo(json.dumps(report.to_dict(), indent=2) if as_json else report.to_text())


def _write_report(report: Report, out: Path | None) -> None:
    if out is None:
        return
    from . import plots
    from ._files import write_bytes

    out.mkdir(parents=True, exist_ok=True)
    write_bytes(out / "audit.txt", (report.to_text(examples=50) + "\n").encode())
    write_bytes(out / "audit.json", (json.dumps(report.to_dict(), indent=2) + "\n").encode())
    pairs = plots.leak_pairs(report)
    if pairs:
        write_bytes(out / "audit.png", plots.contact_sheet(pairs))


def _write_splits(items: Sequence[Item], out: Path) -> None:
    from ._files import write_all
    from .data.sets import SPLITS
    from .data.tables import format_table

    grouped = any(item.group is not None for item in items)
    header = ["filename", "label", *(["group"] if grouped else [])]
    tables = {}
    for name in SPLITS:
        rows = [
            [
                item.name if item.path is None else os.path.relpath(item.path, out),
                item.label,
                *([item.group or ""] if grouped else []),
            ]
            for item in items
            if item.split == name
        ]
        if rows:
            tables[out / f"{name}.csv"] = format_table(header, rows)
    out.mkdir(parents=True, exist_ok=True)
    write_all(tables)
    # An earlier table of a split that is empty now would join the other two.
    for name in SPLITS:
        if out / f"{name}.csv" not in tables:
            (out / f"{name}.csv").unlink(missing_ok=True)
