from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from ncps.wirings import AutoNCP, FullyConnected, Wiring
from PIL import Image

from fastltc import inspect
from fastltc.jobs import plots
from fastltc.jobs.evaluation.curves import curves_of

BLUE = (0x18, 0x64, 0xAB)
ORANGE = (0xE8, 0x59, 0x0C)
CYAN = (0x66, 0xD9, 0xE8)


def pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"), dtype=np.int64)


def share(png: bytes, color: tuple[int, int, int]) -> float:
    """The share of pixels of about this hue, also where a line is half transparent."""
    image = 255.0 - pixels(png)
    wanted = 255.0 - np.array(color)
    strength = image @ wanted / (wanted @ wanted)
    off = np.linalg.norm(image - strength[..., None] * wanted, axis=-1)
    return float(((strength > 0.5) & (off < 12)).mean())


def record(epoch: int, **changes: float | None) -> dict[str, float | None]:
    values: dict[str, float | None] = {
        "epoch": epoch,
        "train_loss": 1 / epoch,
        "val_loss": 1.2 / epoch,
        "train_accuracy": 1 - 0.5 / epoch,
        "val_accuracy": 1 - 0.6 / epoch,
        "val_auc": 1 - 0.4 / epoch,
    }
    return {**values, **changes}


def test_the_training_curve_has_its_lines() -> None:
    with_auc = plots.training_curve([record(epoch) for epoch in (1, 2, 3)], best_epoch=2)
    without = plots.training_curve([record(epoch, val_auc=None) for epoch in (1, 2, 3)])
    assert share(with_auc, BLUE) > 1e-3
    assert share(with_auc, ORANGE) > 5e-4
    assert share(without, ORANGE) == 0.0


def test_one_epoch_is_enough_for_a_curve() -> None:
    assert pixels(plots.training_curve([record(1)], best_epoch=1)).shape[2] == 3


def test_the_confusion_matrix_shows_the_share_of_the_true_class() -> None:
    right = pixels(plots.confusion_matrix([[50, 0], [0, 2]], ["a", "b"]))
    wrong = pixels(plots.confusion_matrix([[0, 50], [2, 0]], ["a", "b"]))
    assert right.shape == wrong.shape
    dark = np.array([8, 48, 107])
    assert (np.abs(right - dark).sum(axis=-1) < 10).mean() > 0.05
    # The dark squares lie on the other diagonal.
    first, second = (
        np.argwhere(np.abs(image[:, : image.shape[1] * 2 // 3] - dark).sum(axis=-1) < 10)
        for image in (right, wrong)
    )
    assert np.corrcoef(first.T)[0, 1] > 0.3
    assert np.corrcoef(second.T)[0, 1] < -0.3


def test_a_class_without_images_does_not_divide_by_zero() -> None:
    with np.errstate(all="raise"):
        plots.confusion_matrix([[0, 0], [1, 3]], ["a", "b"])


def test_a_matrix_of_another_size() -> None:
    with pytest.raises(ValueError, match=r"matrix: expected shape \(3, 3\) for 3 classes"):
        plots.confusion_matrix([[1, 0], [0, 1]], ["a", "b", "c"])


@pytest.mark.parametrize("wiring", [AutoNCP(19, 2), AutoNCP(40, 10), FullyConnected(6, 2)])
def test_the_wiring_diagram_has_both_signs(wiring: Wiring) -> None:
    wiring.build(16)
    diagram = plots.wiring_diagram(wiring)
    assert share(diagram, BLUE) > 1e-3
    assert share(diagram, ORANGE) > 1e-3
    # A full one is a matrix.
    has_command_neurons = isinstance(wiring, AutoNCP)
    assert (share(diagram, CYAN) > 1e-3) == has_command_neurons


def test_each_synapse_is_drawn_with_its_sign() -> None:
    def diagram(polarity: int) -> bytes:
        wiring = Wiring(3)
        wiring.set_output_dim(1)
        wiring.build(1)
        wiring.add_sensory_synapse(0, 2, polarity)
        wiring.add_synapse(2, 0, polarity)
        wiring.add_synapse(1, 1, polarity)
        return plots.wiring_diagram(wiring, title="")

    # The legend has a sample of each.
    assert share(diagram(1), BLUE) > 3 * share(diagram(-1), BLUE)
    assert share(diagram(-1), ORANGE) > 3 * share(diagram(1), ORANGE)


def test_a_wiring_without_inputs_is_not_drawn() -> None:
    with pytest.raises(ValueError, match="expected a built wiring"):
        plots.wiring_diagram(AutoNCP(19, 2))


def test_pictures_leave_pyplot_alone() -> None:
    code = (
        "import sys; from fastltc.jobs import plots;"
        "plots.confusion_matrix([[1, 0], [0, 1]], 'ab');"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    import subprocess

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_graph_has_cyan_command_neurons_and_both_signs() -> None:
    wiring = AutoNCP(19, 2)
    with pytest.raises(ValueError, match="expected a built wiring"):
        plots.wiring_graph(wiring)
    wiring.build(16)
    graph = plots.wiring_graph(wiring, title="AutoNCP")
    for color in (BLUE, ORANGE, CYAN):
        assert share(graph, color) > 1e-3


def test_the_montage_shows_each_class_in_its_row() -> None:
    images = np.zeros((20, 1, 6, 6), np.uint8)
    labels = np.arange(20) % 2
    images[labels == 1] = 255
    sheet = pixels(plots.montage(images, labels, ["dark", "light"], each=5))
    height, width = sheet.shape[:2]
    upper = sheet[: height // 2, width // 3 :].mean()
    lower = sheet[height // 2 :, width // 3 :].mean()
    assert lower - upper > 100


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures behind the pictures."""
    figures: list[Figure] = []
    for module in (inspect.diagram, inspect.graph, plots.runs, plots.scores):
        real = module.to_png

        def keep(figure: Figure, *arguments: str, real: Any = real, **options: str) -> bytes:
            figures.append(figure)
            return real(figure, *arguments, **options)

        monkeypatch.setattr(module, "to_png", keep)
    return figures


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def scored(resamples: int) -> plots.Curves:
    labels = np.array([1, 1, 1, 0, 1, 0, 0, 0])
    second = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.5, 0.3, 0.2])
    return curves_of(labels, np.stack([1 - second, second], 1), 1, resamples=resamples)


def test_a_roc_curve_has_every_point_and_names_what_it_shows(drawn: list[Figure]) -> None:
    plots.roc_curve(scored(100), title="x")
    (axes,) = drawn[0].axes
    chance, curve = axes.get_lines()
    found = scored(0)
    assert curve.get_xydata().tolist() == np.stack([found.false_rate, found.true_rate], 1).tolist()
    # From point to point: steps, and a slope where a positive and a negative have equal scores.
    assert curve.get_drawstyle() == "default"
    assert chance.get_xydata().tolist() == [[0, 0], [1, 1]]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[0].startswith(f"AUC {found.auc.value:.3f} [")
    assert labels[1:] == ["95 % of the bootstrap, at each place", "chance (AUC 0.5)"]
    plots.roc_curve(found)
    labels = [text.get_text() for text in drawn[1].axes[0].get_legend().get_texts()]
    assert labels == [f"AUC {found.auc.value:.3f}", "chance (AUC 0.5)"]


def test_a_precision_recall_curve_goes_in_steps(drawn: list[Figure]) -> None:
    plots.precision_recall(scored(100))
    (axes,) = drawn[0].axes
    chance, curve = axes.get_lines()
    assert curve.get_drawstyle() == "steps-pre"
    assert set(chance.get_ydata()) == {0.5}
    found = scored(0)
    assert curve.get_xydata().tolist() == np.stack([found.true_rate, found.precision], 1).tolist()
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[0].startswith(f"average precision {found.average_precision.value:.3f} [")
    assert labels[2] == "chance: the share of the class, 0.500"


def test_calibration_is_a_picture() -> None:
    measured = {"bins": [{"score": 0.2, "share": 0.3, "n": 5}], "ece": 0.1}
    assert share(plots.calibration(measured), BLUE) > 1e-4


def compared(name: str, values: list[float], interval: list[float] | None) -> dict[str, Any]:
    found = {"mean": np.mean(values), "std": np.std(values), "values": values, "interval": interval}
    return {
        "name": name,
        "model": "dense",
        "n": len(values),
        "test": {"auc": found},
        "positive": None,
        "trainable_parameters": 3,
        "runs": [name],
        "checkpoints": [{"epoch": 4, "digest": "0123abcd"}],
    }


def test_runs_are_compared_by_points_with_the_intervals_that_are_known(
    drawn: list[Figure],
) -> None:
    rows = [
        compared("seeds", [0.8, 0.9], [0.2, 1.5]),
        compared("single", [0.7], [0.6, 0.75]),
        compared("unknown", [0.65], None),
    ]
    made = plots.comparison(rows)
    axes = drawn[0].axes[0]
    assert not axes.patches  # no bars, which would have to start at 0
    reaches = {
        (tuple(line.get_xdata()), tuple(line.get_ydata()))
        for line in axes.get_lines()
        if line.get_linestyle() == "-" and len(line.get_xdata()) == 2
    }
    assert ((0.2, 1.0), (0, 0)) in reaches  # no metric is above 1
    assert ((0.6, 0.75), (1, 1)) in reaches
    assert not any(y == (2, 2) for _, y in reaches)
    legend = {text.get_text() for text in drawn[0].legends[0].get_texts()}
    assert legend == {
        "a seed",
        "mean of seeds, 95 % t interval",
        "single run, 95 % bootstrap interval",
        "single run, no interval known",
    }
    with Image.open(io.BytesIO(made)) as image:
        assert image.text["Description"].startswith("seeds: epoch 4, digest 0123abcd; single: ")


def test_a_picture_says_which_checkpoint_it_is_of(drawn: list[Figure]) -> None:
    of = "best.pt, epoch 3, digest 0123456789abcdef"
    wiring = AutoNCP(12, 2)
    wiring.build(3)
    for made in (
        plots.training_curve([record(1)], of=of),
        plots.confusion_matrix([[1, 0], [0, 1]], "ab", of=of),
        plots.roc_curve(scored(0), of=of),
        plots.precision_recall(scored(0), of=of),
        plots.calibration({"bins": [{"score": 0.2, "share": 0.3, "n": 5}], "ece": 0.1}, of=of),
        plots.wiring_diagram(wiring, of=of),
        plots.wiring_graph(wiring, of=of),
    ):
        assert of in texts(drawn.pop())
        with Image.open(io.BytesIO(made)) as image:
            assert image.text["Description"] == of


def test_names_are_no_formulas() -> None:
    history = [record(1), record(2)]
    made = plots.confusion_matrix([[3, 1], [0, 4]], ["$x_{$", r"$\\frac$"], title="$folder: $a^$")
    assert pixels(made).min() < 255
    images = np.zeros((2, 1, 8, 8), np.uint8)
    plots.montage(images, np.array([0, 1]), ["$x_{$", "$^$"], title="$^$")
    plots.training_curve(history, title="$^$")
    plots.roc_curve(scored(0), title="$^$")
    plots.comparison([compared("$^$", [0.9], None)])


@pytest.mark.filterwarnings("error")
def test_names_in_any_script_warn_of_nothing() -> None:
    made = plots.confusion_matrix([[3, 1], [0, 4]], ["良性", "악성"], title="データ")
    assert pixels(made).min() < 255
