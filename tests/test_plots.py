from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from ncps.wirings import AutoNCP, FullyConnected, Wiring
from PIL import Image

from fastltc import plots

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
        "import sys; from fastltc import plots; plots.confusion_matrix([[1, 0], [0, 1]], 'ab');"
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


def test_curves_and_calibration_are_pictures() -> None:
    grid = np.linspace(0, 1, 11)
    bands = {"grid": grid}
    for name in ("tpr", "precision"):
        bands |= {name: grid, f"{name}_low": grid * 0.9, f"{name}_high": grid}
    for picture in (
        plots.roc_curve(bands, title="x"),
        plots.precision_recall(bands, share=0.4),
        plots.calibration({"bins": [{"score": 0.2, "share": 0.3, "n": 5}], "ece": 0.1}),
    ):
        assert share(picture, BLUE) > 1e-4


def test_names_are_no_formulas() -> None:
    history = [record(1), record(2)]
    made = plots.confusion_matrix([[3, 1], [0, 4]], ["$x_{$", r"$\\frac$"], title="$folder: $a^$")
    assert pixels(made).min() < 255
    images = np.zeros((2, 1, 8, 8), np.uint8)
    plots.montage(images, np.array([0, 1]), ["$x_{$", "$^$"], title="$^$")
    plots.training_curve(history, title="$^$")
    plots.roc_curve(
        {name: np.linspace(0, 1, 5) for name in ("grid", "tpr", "tpr_low", "tpr_high")},
        title="$^$",
    )
    row = {
        "name": "$^$",
        "model": "dense",
        "test": {"auc": {"mean": 0.9, "std": 0.0}},
        "positive": None,
        "trainable_parameters": 3,
    }
    plots.comparison([row])


@pytest.mark.filterwarnings("error")
def test_names_in_any_script_warn_of_nothing() -> None:
    made = plots.confusion_matrix([[3, 1], [0, 4]], ["良性", "악성"], title="データ")
    assert pixels(made).min() < 255
