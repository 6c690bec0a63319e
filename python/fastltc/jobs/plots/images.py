"""Pictures of images: examples of every class, and pairs that leak."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ...inspect.figure import shortened, to_png, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..data.audit_report import Item, Report


def montage(
    images: NDArray[np.generic],
    labels: NDArray[np.int64],
    classes: Sequence[str],
    *,
    each: int = 8,
    most: int = 12,
    title: str = "",
) -> bytes:
    """Examples of every class, a row for each.

    Args:
        images: ``[n, C, H, W]``, uint8, or float32 in ``[0, 1]``; C of 1 or 3.
        labels: ``[n]``.
        classes: class names.
        each: images of a class.
        most: classes that are shown.
        title: written above.

    Returns:
        A PNG file.
    """
    rows = min(len(classes), most)
    figure = Figure(figsize=(0.9 * each + 1.8, 0.95 * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, each, squeeze=False)
    for row in range(rows):
        chosen = np.flatnonzero(labels == row)[:each]
        for column, axes in enumerate(grid[row]):
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            if column < len(chosen):
                _show(axes, images[chosen[column]])
        grid[row][0].set_ylabel(wrapped(classes[row]), rotation=0, ha="right", va="center")
    if title:
        figure.suptitle(textwrap.fill(title, 80), fontsize=11)
    return to_png(figure)


def wrong_images(
    images: NDArray[np.generic], captions: Sequence[str], *, title: str = "", of: str = ""
) -> bytes:
    """The images that a classifier was most wrong about.

    Args:
        images: ``[n, C, H, W]``, uint8, or float32 in ``[0, 1]``; C of 1 or 3.
        captions: written above each.
        title: written above.
        of: the checkpoint, written below and into the file.

    Returns:
        A PNG file.
    """
    columns = min(4, len(images))
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.7 * rows + 0.6), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for place, axes in enumerate(grid):
        axes.set_axis_off()
        if place < len(images):
            _show(axes, images[place])
            axes.set_title(captions[place], fontsize=7)
    if title:
        figure.suptitle(textwrap.fill(title, 28 * columns), fontsize=10)
    return to_png(figure, of)


def _show(axes: Axes, image: NDArray[np.generic]) -> None:
    """An image ``[C, H, W]``."""
    pixels = np.moveaxis(image, 0, -1)
    limit = 255 if image.dtype == np.uint8 else 1
    shown = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    axes.imshow(shown, cmap="gray", vmin=0, vmax=limit, interpolation="nearest")


class Picture(NamedTuple):
    """A captioned image of an audited item."""

    caption: str
    item: Item


def leak_pairs(report: Report, most: int = 24) -> list[tuple[Picture, Picture]]:
    """Of each leak between images one picture of either side, for `contact_sheet`.

    Args:
        report: of `fastltc.jobs.data.audit.audit`.
        most: pairs at most; each kind of leak has its turn.
    """
    by_kind: dict[str, list[tuple[Picture, Picture]]] = {}
    for cluster in report.clusters:
        items = [report.items[index] for index in cluster.example or cluster.members]
        first = items[0]
        other = next(item for item in items if item.split != first.split)
        if first.visible and other.visible:
            one = f"{cluster.kind}: {first.split}\n{shortened(first.name, 26)}"
            two = f"{other.split}, class {other.label}\n{shortened(other.name, 26)}"
            pair = (Picture(one, first), Picture(two, other))
            by_kind.setdefault(cluster.kind, []).append(pair)
    turns = itertools.zip_longest(*by_kind.values())
    return [pair for turn in turns for pair in turn if pair is not None][:most]


def contact_sheet(pairs: Sequence[tuple[Picture, Picture]]) -> bytes:
    """Pairs of pictures side by side, three pairs to a row.

    Args:
        pairs: from `leak_pairs`.

    Returns:
        A PNG file.
    """
    from ..data.audit import picture

    columns = min(3, len(pairs))
    rows = -(-len(pairs) // columns)
    figure = Figure(figsize=(4.2 * columns, 2.4 * rows), layout="constrained")
    grid = figure.subplots(rows, 2 * columns, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    for place, pair in enumerate(pairs):
        row, column = divmod(place, columns)
        for side, (caption, item) in enumerate(pair):
            axes = grid[row, 2 * column + side]
            if item.pixels is not None:
                shape = (3, *item.pixels.shape[1:])
                pixels = np.moveaxis(np.broadcast_to(item.pixels, shape), 0, -1)
            else:
                image, _ = picture(item.file)
                image.thumbnail((256, 256))
                pixels = np.asarray(image.convert("RGB"))
            axes.imshow(pixels, interpolation="nearest")
            axes.set_title(caption, fontsize=7)
    return to_png(figure)
