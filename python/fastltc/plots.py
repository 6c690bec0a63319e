"""Pictures of a run, as PNG: training curve, confusion matrix, wiring diagram.

Figures are made without pyplot, so no backend is chosen and no window state is shared with the
program that calls.
"""

from __future__ import annotations

import functools
import io
import itertools
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Affine2D, ScaledTranslation
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from ncps.wirings import Wiring

    from .data.audit import Item, Report

_DPI = 120
_BLUE = "#1864ab"
_ORANGE = "#e8590c"
_GREY = "#868e96"
# For names in scripts that DejaVu Sans, which comes with matplotlib, does not have.
_FALLBACKS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans CJK KR",
    "WenQuanYi Zen Hei",
    "Microsoft YaHei",
    "Yu Gothic",
    "Malgun Gothic",
    "PingFang SC",
    "Hiragino Sans",
    "Arial Unicode MS",
)
_FILL = {"sensory": "#e9ecef", "inter": "#ffec99", "command": "#66d9e8", "motor": "#d0bfff"}


def training_curve(
    history: Sequence[Mapping[str, Any]], *, best_epoch: int | None = None, title: str = ""
) -> bytes:
    """Loss, and accuracy and AUC, over the epochs.

    Args:
        history: records with ``epoch``, ``train_loss``, ``val_loss``, ``train_accuracy``,
            ``val_accuracy`` and ``val_auc`` (which may be None).
        best_epoch: marked by a line.
        title: written above.

    Returns:
        A PNG file.

    Example:
        >>> record = {"epoch": 1, "train_loss": 0.7, "val_loss": 0.6, "train_accuracy": 0.5,
        ...           "val_accuracy": 0.6, "val_auc": 0.7}
        >>> training_curve([record])[1:4]
        b'PNG'
    """
    epochs = [record["epoch"] for record in history]
    figure = Figure(figsize=(10, 4), layout="constrained")
    losses, scores = figure.subplots(1, 2)
    _curve(losses, epochs, history, "train_loss", "training", _GREY)
    _curve(losses, epochs, history, "val_loss", "validation", _BLUE)
    losses.set_ylim(bottom=0)
    losses.set_ylabel("cross-entropy")
    _curve(scores, epochs, history, "train_accuracy", "training accuracy", _GREY)
    _curve(scores, epochs, history, "val_accuracy", "validation accuracy", _BLUE)
    if all(record["val_auc"] is not None for record in history):
        _curve(scores, epochs, history, "val_auc", "validation AUC", _ORANGE)
    scores.set_ylim(top=1.005)
    scores.set_ylabel("score")
    for axes in (losses, scores):
        if best_epoch is not None:
            axes.axvline(
                best_epoch, color="black", lw=0.8, ls=":", label=f"best checkpoint ({best_epoch})"
            )
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=9)
    if title:
        figure.suptitle(title)
    return _png(figure)


def _curve(
    axes: Axes,
    epochs: Sequence[int],
    history: Sequence[Mapping[str, Any]],
    key: str,
    label: str,
    color: str,
) -> None:
    marker = "o" if len(epochs) <= 30 else None
    values = [record[key] for record in history]
    axes.plot(epochs, values, color=color, lw=1.8, marker=marker, ms=3, label=label)


def confusion_matrix(
    matrix: Sequence[Sequence[int]] | NDArray[np.int64], classes: Sequence[str], *, title: str = ""
) -> bytes:
    """A confusion matrix: counts, coloured by the share of the true class.

    Args:
        matrix: ``[classes, classes]``, rows are true, columns predicted.
        classes: class names.
        title: written above, followed by the accuracy.

    Returns:
        A PNG file.

    Example:
        >>> confusion_matrix([[3, 1], [0, 4]], ["a", "b"])[1:4]
        b'PNG'
    """
    counts = np.asarray(matrix)
    n = len(classes)
    if counts.shape != (n, n):
        raise ValueError(f"matrix: expected shape {(n, n)} for {n} classes, got {counts.shape}")
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 2.6 + max(2.0, 0.5 * n)
    figure = Figure(figsize=(side + 0.6, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row in range(n):
        for column in range(n):
            axes.text(
                column,
                row,
                f"{counts[row, column]}",
                ha="center",
                va="center",
                fontsize=14 if n <= 4 else 9,
                color="white" if shares[row, column] > 0.55 else "black",
                alpha=1.0 if counts[row, column] else 0.35,
            )
    axes.set_xticks(range(n), [_wrapped(name) for name in classes])
    axes.set_yticks(range(n), [_wrapped(name) for name in classes])
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true class")
    correct = int(np.trace(counts))
    total = int(counts.sum())
    accuracy = f"{correct} of {total} right" + (f" ({correct / total:.1%})" if total else "")
    axes.set_title(f"{title}\n{accuracy}" if title else accuracy, fontsize=11)
    return _png(figure)


def _wrapped(name: str) -> str:
    return name.replace(" or ", "\nor ")


def wiring_diagram(wiring: Wiring, *, title: str | None = None) -> bytes:
    """The neurons of a built wiring in layers, and their synapses by sign.

    Signals run from left to right: sensory, inter, command and motor neurons. Excitatory synapses
    (positive reversal potential) end in an arrow, inhibitory ones in a bar. Synapses within a
    layer are bows beside it, those onto the same neuron loops. The signs are those of the wiring,
    where training starts.

    Args:
        wiring: any ``ncps.wirings.Wiring`` that has been built.
        title: written above; None for a summary of the sizes.

    Returns:
        A PNG file.

    Raises:
        ValueError: the wiring is not built.

    Example:
        >>> from ncps.wirings import AutoNCP
        >>> wiring = AutoNCP(19, 2)
        >>> wiring.build(16)
        >>> wiring_diagram(wiring)[1:4]
        b'PNG'
    """
    if not wiring.is_built():
        raise ValueError("wiring: expected a built wiring; call wiring.build(input_dim) first")
    synapses = _synapses(wiring)
    layers = _layers(wiring)
    _untangle(layers, synapses)
    rows = max(len(layer) for _, layer in layers)
    # Wide layers get closer neurons instead of an ever taller picture.
    height = float(np.clip(0.46 * rows + 1.6, 5.0, 14.0))
    figure = Figure(figsize=(11, height), layout="constrained")
    axes = figure.subplots()
    gap = 3.2
    places = {}
    for column, (_, layer) in enumerate(layers):
        for row, neuron in enumerate(layer):
            spread = rows / len(layer)
            places[neuron] = (gap * column, -(row + 0.5) * spread)
    # A neuron is at most a circle of 0.3 rows; labels stay legible in it up to this many rows.
    pitch = (height - 1.6) * 72 / rows
    size = float(np.clip(0.72 * pitch, 4.0, 19.0))
    columns = {neuron: column for column, (_, layer) in enumerate(layers) for neuron in layer}
    # Hundreds of lines at full strength would run together.
    strength = float(np.clip((300 / max(len(synapses), 1)) ** 0.5, 0.3, 1.0))
    for source, target, polarity in synapses:
        _synapse(
            axes,
            places[source],
            places[target],
            excitatory=polarity > 0,
            same_layer=columns[source] == columns[target],
            size=size,
            strength=strength,
        )
    for kind, layer in layers:
        x, y = zip(*(places[neuron] for neuron in layer), strict=True)
        axes.plot(x, y, "o", ms=size, mfc=_FILL[kind], mec="#343a40", mew=0.9, zorder=3)
        axes.text(x[0], 0.35, f"{kind}\n{len(layer)}", ha="center", va="bottom", fontsize=11)
        if size >= 9:
            for neuron in layer:
                number = str(neuron[1])
                axes.text(
                    *places[neuron],
                    number,
                    ha="center",
                    va="center_baseline",
                    fontsize=min(0.5 * size, 8.5),
                    zorder=4,
                )
    axes.set_xlim(-1.0, gap * (len(layers) - 1) + 1.0)
    # 36 points for the two lines above a layer.
    axes.set_ylim(-rows - 0.3, 0.35 + 36 / pitch)
    axes.set_axis_off()
    axes.legend(
        handles=[
            Line2D([], [], color=_BLUE, lw=1.6, marker=">", ms=6, label="excitatory"),
            Line2D([], [], color=_ORANGE, lw=1.6, marker="|", ms=9, mew=1.6, label="inhibitory"),
        ],
        loc="upper center",
        bbox_to_anchor=(0.5, 0.01),
        ncols=2,
        frameon=False,
    )
    if title is None:
        sensory = sum(source[0] == "sensory" for source, _, _ in synapses)
        title = (
            f"{type(wiring).__name__}: {wiring.units} neurons, {len(synapses) - sensory} synapses, "
            f"{sensory} sensory synapses"
        )
    axes.set_title(title, fontsize=12)
    return _png(figure)


def wiring_graph(wiring: Wiring, *, title: str = "") -> bytes:
    """The neurons of a built wiring as a graph: connected ones close together (Kamada-Kawai).

    Command neurons are cyan; solid lines are excitatory synapses, dashed ones inhibitory.

    Args:
        wiring: any ``ncps.wirings.Wiring`` that has been built.
        title: written above.

    Returns:
        A PNG file.

    Raises:
        ValueError: the wiring is not built.

    Source: T. Kamada, S. Kawai, "An algorithm for drawing general undirected graphs", 1989.
    """
    import networkx

    if not wiring.is_built():
        raise ValueError("wiring: expected a built wiring; call wiring.build(input_dim) first")
    synapses = _synapses(wiring)
    graph = networkx.DiGraph()
    kinds = {neuron: kind for kind, layer in _layers(wiring) for neuron in layer}
    graph.add_nodes_from(kinds)
    graph.add_edges_from((source, target) for source, target, _ in synapses)
    places = networkx.kamada_kawai_layout(graph.to_undirected())
    figure = Figure(figsize=(8, 8), layout="constrained")
    axes = figure.subplots()
    size = float(np.clip(9000 / len(kinds), 30, 300))
    for excitatory, style in ((True, "solid"), (False, "dashed")):
        edges = [edge[:2] for edge in synapses if (edge[2] > 0) == excitatory]
        networkx.draw_networkx_edges(
            graph,
            places,
            edgelist=edges,
            ax=axes,
            style=style,
            edge_color=_BLUE if excitatory else _ORANGE,
            alpha=float(np.clip((150 / max(len(synapses), 1)) ** 0.5, 0.15, 0.8)),
            node_size=size,
            arrowsize=7,
            connectionstyle="arc3,rad=0.06",
        )
    handles = []
    for kind, color in _FILL.items():
        chosen = [neuron for neuron, own in kinds.items() if own == kind]
        if not chosen:
            continue
        x, y = zip(*(places[neuron] for neuron in chosen), strict=True)
        handles.append(
            axes.scatter(
                x,
                y,
                s=size,
                color=color,
                edgecolors="#343a40",
                linewidths=0.8,
                zorder=3,
                label=f"{kind} ({len(chosen)})",
            )
        )
    axes.set_axis_off()
    axes.legend(handles=handles, frameon=False, loc="upper right")
    axes.set_title(title, fontsize=12)
    return _png(figure)


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
                pixels = np.moveaxis(images[chosen[column]], 0, -1)
                limit = 255 if images.dtype == np.uint8 else 1
                shown = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
                axes.imshow(shown, cmap="gray", vmin=0, vmax=limit, interpolation="nearest")
        grid[row][0].set_ylabel(_wrapped(classes[row]), rotation=0, ha="right", va="center")
    if title:
        figure.suptitle(title, fontsize=11)
    return _png(figure)


# ("sensory", index) or ("neuron", index)
_Neuron = tuple[str, int]


def _synapses(wiring: Wiring) -> list[tuple[_Neuron, _Neuron, float]]:
    found = []
    for kind, matrix in (
        ("sensory", wiring.sensory_adjacency_matrix),
        ("neuron", wiring.adjacency_matrix),
    ):
        for source, target in zip(*np.nonzero(matrix), strict=True):
            polarity = float(matrix[source, target])
            found.append(((kind, int(source)), ("neuron", int(target)), polarity))
    return found


def _layers(wiring: Wiring) -> list[tuple[str, list[_Neuron]]]:
    by_kind: dict[str, list[_Neuron]] = {kind: [] for kind in _FILL}
    by_kind["sensory"] = [("sensory", index) for index in range(wiring.input_dim)]
    for index in range(wiring.units):
        kind = wiring.get_type_of_neuron(index)
        by_kind[kind if kind in _FILL else "inter"].append(("neuron", index))
    return [(kind, layer) for kind, layer in by_kind.items() if layer]


def _untangle(
    layers: list[tuple[str, list[_Neuron]]], synapses: list[tuple[_Neuron, _Neuron, float]]
) -> None:
    """Orders each layer by the mean height of the neurons it is connected to (barycentres)."""
    neighbours: dict[_Neuron, list[_Neuron]] = {}
    for source, target, _ in synapses:
        neighbours.setdefault(source, []).append(target)
        neighbours.setdefault(target, []).append(source)
    heights = {
        neuron: (row + 0.5) / len(layer) for _, layer in layers for row, neuron in enumerate(layer)
    }
    for _ in range(12):
        for _, layer in layers:
            means = {
                neuron: float(np.mean([heights[n] for n in neighbours.get(neuron, [neuron])]))
                for neuron in layer
            }
            layer.sort(key=means.__getitem__)
            for row, neuron in enumerate(layer):
                heights[neuron] = (row + 0.5) / len(layer)


def _synapse(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    *,
    excitatory: bool,
    same_layer: bool,
    size: float,
    strength: float,
) -> None:
    style = "-|>,head_width=2.2,head_length=4" if excitatory else "|-|,widthA=0,widthB=3"
    shrink = size / 2 + (1.0 if excitatory else 2.0)
    bow = 0.0
    transform: Any = axes.transData
    if start == end:
        # Measured in points from the neuron: out at its upper right, in at its lower right.
        figure = axes.get_figure(root=True)
        assert figure is not None
        points = figure.dpi_scale_trans
        transform = Affine2D().scale(size / 72) + points + ScaledTranslation(*start, transform)
        start, end = (0.4, 0.34), (0.4, -0.34)
        bow = -2.4
        shrink = 1.0
    elif same_layer:
        # Downward bows on the left, upward bows on the right; long ones bend no further out.
        bow = min(0.45, 1.6 / abs(start[1] - end[1]))
    arrow = FancyArrowPatch(
        start,
        end,
        transform=transform,
        arrowstyle=style,
        connectionstyle=f"arc3,rad={bow}",
        shrinkA=shrink,
        shrinkB=shrink,
        mutation_scale=strength,
        color=_BLUE if excitatory else _ORANGE,
        lw=strength,
        alpha=0.75 * strength,
        zorder=2 if same_layer else 1,
    )
    # The neurons already span the layout; measuring hundreds of arrows for it takes seconds.
    arrow.set_in_layout(False)
    axes.add_patch(arrow)


def leak_pairs(report: Report, most: int = 24) -> list[tuple[Picture, Picture]]:
    """Of each leak between images one picture of either side, for `contact_sheet`.

    Args:
        report: of `fastltc.data.audit.audit`.
        most: pairs at most; each kind of leak has its turn.
    """
    by_kind: dict[str, list[tuple[Picture, Picture]]] = {}
    for cluster in report.clusters:
        items = [report.items[index] for index in cluster.example or cluster.members]
        first = items[0]
        other = next(item for item in items if item.split != first.split)
        if all(item.path is not None or item.pixels is not None for item in (first, other)):
            by_kind.setdefault(cluster.kind, []).append(
                (
                    Picture(f"{cluster.kind}: {first.split}\n{_short(first.name)}", first),
                    Picture(f"{other.split}, class {other.label}\n{_short(other.name)}", other),
                )
            )
    turns = itertools.zip_longest(*by_kind.values())
    return [pair for turn in turns for pair in turn if pair is not None][:most]


def _short(name: str, length: int = 26) -> str:
    return name if len(name) <= length else f"...{name[3 - length :]}"


class Picture(NamedTuple):
    """A captioned image of an audited item."""

    caption: str
    item: Item


def contact_sheet(pairs: Sequence[tuple[Picture, Picture]]) -> bytes:
    """Pairs of pictures side by side, three pairs to a row.

    Args:
        pairs: from `leak_pairs`.

    Returns:
        A PNG file.
    """
    from .data.audit import picture

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
            if item.path is not None:
                image, _ = picture(item.path)
                image.thumbnail((256, 256))
                pixels = np.asarray(image.convert("RGB"))
            else:
                assert item.pixels is not None
                pixels = np.moveaxis(
                    np.broadcast_to(item.pixels, (3, *item.pixels.shape[1:])), 0, -1
                )
            axes.imshow(pixels, interpolation="nearest")
            axes.set_title(caption, fontsize=7)
    return _png(figure)


def roc_curve(bands: Mapping[str, NDArray[np.float64]], *, title: str = "") -> bytes:
    """True over false positives, with the 95 % band of the bootstrap.

    Args:
        bands: ``grid``, ``tpr``, ``tpr_low`` and ``tpr_high``.
        title: written above.

    Returns:
        A PNG file.
    """
    figure, axes = _square(title)
    axes.plot([0, 1], [0, 1], color=_GREY, lw=0.8, ls=":")
    _band(axes, bands, "tpr")
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
    return _png(figure)


def precision_recall(
    bands: Mapping[str, NDArray[np.float64]], *, share: float, title: str = ""
) -> bytes:
    """The best precision that still reaches each recall, with the 95 % band of the bootstrap.

    Args:
        bands: ``grid``, ``precision``, ``precision_low`` and ``precision_high``.
        share: of the positive class, which a classifier without any skill has as its precision.
        title: written above.

    Returns:
        A PNG file.
    """
    figure, axes = _square(title)
    axes.axhline(share, color=_GREY, lw=0.8, ls=":")
    _band(axes, bands, "precision")
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")
    return _png(figure)


def calibration(measured: Mapping[str, Any], *, title: str = "") -> bytes:
    """How often the class is true at each level of its probability.

    Args:
        measured: ``bins`` with ``score``, ``share`` and ``n``, and ``ece``.
        title: written above.

    Returns:
        A PNG file.
    """
    figure, axes = _square(title)
    axes.plot([0, 1], [0, 1], color=_GREY, lw=0.8, ls=":")
    scores = [entry["score"] for entry in measured["bins"]]
    shares = [entry["share"] for entry in measured["bins"]]
    counts = np.array([entry["n"] for entry in measured["bins"]], dtype=float)
    axes.plot(scores, shares, color=_BLUE, lw=1.4)
    axes.scatter(scores, shares, s=12 + 120 * counts / counts.max(), color=_BLUE, zorder=3)
    axes.set_xlabel("mean probability")
    axes.set_ylabel("share of the class")
    axes.text(0.03, 0.94, f"calibration error {measured['ece']:.3f}", fontsize=10)
    return _png(figure)


def _square(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.8, 4.8), layout="constrained")
    axes = figure.subplots()
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.01)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, fontsize=10)
    return figure, axes


def _band(axes: Axes, bands: Mapping[str, NDArray[np.float64]], name: str) -> None:
    axes.fill_between(
        bands["grid"], bands[f"{name}_low"], bands[f"{name}_high"], color=_BLUE, alpha=0.2, lw=0
    )
    axes.plot(bands["grid"], bands[name], color=_BLUE, lw=1.8)


def comparison(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Test metrics of several runs as bars with their deviations, and their parameters.

    Args:
        rows: of `fastltc.training.compare`.

    Returns:
        A PNG file.
    """
    names = ("auc", "accuracy", "f1", "average_precision")
    # Those of one class go side by side where it is the same class.
    same = len({row["positive"] for row in rows}) == 1
    shown = [
        name for name in (names if same else names[:2]) if all(name in row["test"] for row in rows)
    ]
    figure = Figure(figsize=(2.6 + 2.2 * len(shown) + 2.4, 4.2), layout="constrained")
    panels = figure.subplots(1, len(shown) + 1)
    labels = [f"{row['name']}\n{row['model']}" for row in rows]
    for axes, name in zip(panels, shown, strict=False):
        means = [row["test"][name]["mean"] for row in rows]
        errors = [row["test"][name]["std"] for row in rows]
        axes.bar(range(len(rows)), means, yerr=errors, color=_BLUE, alpha=0.8, capsize=3)
        low = min(mean - error for mean, error in zip(means, errors, strict=True))
        axes.set_ylim(max(0.0, low - 0.1), 1.0)
        title = {"auc": "AUC", "f1": "F1"}.get(name, name.replace("_", " "))
        axes.set_title(title if name in names[:2] else f"{title} ({rows[0]['positive']})")
    panels[-1].bar(
        range(len(rows)), [row["trainable_parameters"] for row in rows], color=_ORANGE, alpha=0.8
    )
    panels[-1].set_title("trainable parameters")
    for axes in panels:
        axes.set_xticks(range(len(rows)), labels, rotation=60, ha="right", fontsize=7)
        axes.grid(alpha=0.25, axis="y")
        axes.spines[["top", "right"]].set_visible(False)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        # Names of classes and files are no formulas, whatever dollar signs are in them.
        text.set_parse_math(False)
        text.set_fontfamily([*text.get_fontfamily(), *_installed_fallbacks()])
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Of a script that no font here has: boxes, which say as much as the warning of each.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


@functools.cache
def _installed_fallbacks() -> tuple[str, ...]:
    """Fonts of this machine with letters that matplotlib's own has not."""
    installed = set(font_manager.get_font_names())
    return tuple(name for name in _FALLBACKS if name in installed)
