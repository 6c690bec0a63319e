"""Options that several commands share; those of training have the names of `TrainConfig`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console


def _option(name: str, kind: Any, text: str, metavar: str | None = None) -> Callable[..., Any]:
    flag = name.replace("_", "-")
    if kind is bool:
        return click.option(f"--{flag}/--no-{flag}", name, default=None, help=text)
    return click.option(f"--{flag}", name, type=kind, metavar=metavar, help=text)


_DATA = (
    ("image_size", int, "Resize images from files to NxN.", "N"),
    ("channels", int, "1 for grey, 3 for colour.", "N"),
    ("file_column", str, "Column of a CSV file with the images.", "NAME"),
    ("label_column", str, "Column with the classes.", "NAME"),
    ("split_column", str, "Column with train, val or test.", "NAME"),
    ("group_column", str, "Column of patients, lesions, ...", "NAME"),
    ("time_column", str, "Column with the time of a row.", "NAME"),
    ("window", int, "Rows of a sequence.  [default: 32]", "ROWS"),
    ("stride", int, "Rows from one training sequence to the next.  [default: window]", "ROWS"),
    ("time_unit", float, "One unit of time.  [default: the median step]", "SECONDS"),
    ("split_seed", int, "Seed of a split that is made here.  [default: 0]", "N"),
)
_MODEL = (
    ("model", str, "Model.  [default: conv-ncp; series-ltc; probe]", "NAME"),
    ("cell", str, "Recurrent cell of conv-ncp: ltc or cfc.  [default: ltc]", "NAME"),
    ("units", int, "Neurons.", "N"),
    ("gain", float, "Factor on the motor neurons' outputs.", None),
    ("wiring", str, "Of rows-* and series-*: ncp, random or full.", "NAME"),
    ("sparsity", float, "Share of the synapses that a random wiring lacks.", None),
    ("timestep", float, "Of rows-*: time from one row to the next.", None),
    ("encoder", int, "Of rows-*: features that a row is mapped to; 0 for pixels.", "N"),
    ("wiring_seed", int, "Seed of the wiring.", "N"),
    ("mixed_memory", bool, "An LSTM cell before the liquid one.", None),
    ("spectral_radius", float, "Of the reservoir.", None),
    ("leak", float, "Leak rate of the reservoir.", None),
    ("input_scale", float, "Deviation of the reservoir's input weights.", None),
    ("reads", int, "Of reservoir and rows-*: states that the readout sees.", "N"),
    ("probe", str, "logistic or svm.", "NAME"),
    ("c", float, "Inverse penalty of the probe.", None),
    ("backbone", str, "torchvision model whose features are probed.", "NAME"),
    ("pretrained", bool, "Take torchvision's pretrained weights.", None),
    ("head", str, "Of a torchvision model: linear, ltc or cfc.", "NAME"),
    ("members", int, "Train N such models and ask them together.  [default: 1]", "N"),
    ("weights", str, "State dict that the model starts from.", "FILE"),
)
_TRAINING = (
    ("epochs", int, "Passes over the training split.", "N"),
    ("batch_size", int, "Examples per step.", "N"),
    ("accumulate", int, "Parts that a batch is computed in.", "N"),
    ("optimizer", str, "adam, adamw or nadam.", "NAME"),
    ("lr", float, "Learning rate.", None),
    ("weight_decay", float, "Weight decay.", None),
    ("schedule", str, "constant, cosine or plateau.", "NAME"),
    ("warmup", float, "Epochs in which the rate rises.", "EPOCHS"),
    ("plateau_factor", float, "Of the plateau schedule.", None),
    ("plateau_patience", int, "Of the plateau schedule.", "EPOCHS"),
    ("patience", int, "Stop after so many epochs without a better one.", "EPOCHS"),
    ("clip_norm", float, "Largest norm of the gradient.", None),
    ("class_weights", str, "none, sqrt or balanced.", "NAME"),
    ("label_smoothing", float, "Share of the target that goes to all classes alike.", None),
    ("amp", str, "Mixed precision: none, bf16 or fp16.", "NAME"),
    ("augment_scale", float, "Largest relative change of size.", None),
    ("augment_shift", float, "Largest shift, as a share of the side.", None),
    ("augment_rotate", float, "Largest rotation.", "DEGREES"),
    ("augment_shear", float, "Largest shear.", "DEGREES"),
    ("augment_affine_p", float, "Probability of these four.", None),
    ("augment_flip", bool, "Mirror left and right.", None),
    ("augment_crop", int, "Side of a random square.", "N"),
    ("augment_colour", float, "Largest shift of a colour.", None),
    ("augment_colour_p", float, "Probability of it.", None),
    ("augment_brightness", float, "Largest relative change.", None),
    ("augment_contrast", float, "Largest relative change.", None),
    ("augment_light_p", float, "Probability of the two.", None),
    ("mirror", bool, "Answer with the mean over an image and its mirror image.", None),
    (
        "select",
        str,
        "What the best epoch is: loss, auc, accuracy, f1, f1_macro, average_precision; or last.",
        "METRIC",
    ),
    ("seed", int, "Seed of parameters, order and augmentation.", "N"),
    ("tensorboard", bool, "Write a TensorBoard log.", None),
)

# Options of `TrainConfig` that have a decorator of their own, because other commands have them too.
SHARED_OPTIONS = ("data_root", "positive", "threads", "device")
TRAIN_OPTIONS = tuple(_option(*entry) for entry in (*_DATA, *_MODEL, *_TRAINING))


def absolute(data: str) -> str:
    """The name of a data set, with the path in it made absolute, so that it holds anywhere."""
    kind, colon, place = data.partition(":")
    return f"{kind}:{Path(place).expanduser().resolve()}" if colon and place else data


def options(*decorators: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A decorator that applies several, the first on top."""

    def decorate(command: Any) -> Any:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


DATA_ROOT = click.option(
    "--data-root",
    metavar="DIR",
    help="Folder to look for the data file in first (or the file itself).",
)
OFFLINE = click.option("--offline", is_flag=True, help="Never download.")
DEVICE = click.option("--device", metavar="NAME", help="Torch device, for example cpu or cuda.")
THREADS = click.option("--threads", type=int, metavar="N", help="CPU threads.")
POSITIVE = click.option(
    "--positive", metavar="CLASS", help="Class that F1 is about: its name or number."
)
CHECKPOINT = click.option(
    "--checkpoint",
    type=click.Choice(["best", "last"]),
    default="best",
    show_default=True,
    help="The best epoch by validation, or the last.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def make_console() -> Console:
    """Where commands print: on a terminal in its width, else with lines as long as they are."""
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False)
    if not console.is_terminal:
        # In a file or a pipe nothing is too wide, and a table would be cut.
        console.width = 10_000
    return console


def set_threads(threads: int | None) -> None:
    """Sets torch's threads, where a number is given."""
    if threads is None:
        return
    if threads < 1:
        raise click.BadParameter(f"expected at least 1, got {threads}", param_hint="--threads")
    import torch

    torch.set_num_threads(threads)
