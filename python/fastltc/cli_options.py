"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

DATA_OPTIONS = (
    click.option("--image-size", type=int, metavar="N", help="Resize images from files to NxN."),
    click.option("--channels", type=int, metavar="N", help="1 for grey, 3 for colour."),
    click.option("--file-column", metavar="NAME", help="Column of a CSV file with the images."),
    click.option("--label-column", metavar="NAME", help="Column with the classes."),
    click.option("--split-column", metavar="NAME", help="Column with train, val or test."),
    click.option("--group-column", metavar="NAME", help="Column of patients, lesions, ..."),
    click.option("--time-column", metavar="NAME", help="Column with the time of a row."),
    click.option("--window", type=int, metavar="ROWS", help="Rows of a sequence.  [default: 32]"),
    click.option("--stride", type=int, metavar="ROWS", help="From one sequence to the next."),
    click.option("--time-unit", type=float, metavar="SECONDS", help="One unit of time."),
    click.option("--split-seed", type=int, metavar="N", help="Seed of a split made here."),
)


def absolute(data: str) -> str:
    """The name of a data set, with the path in it made absolute, so that it holds anywhere."""
    kind, colon, place = data.partition(":")
    return f"{kind}:{Path(place).expanduser().resolve()}" if colon and place else data
