"""The ``fastltc export`` command. Only click is imported here, as in ``cli``."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import echo

if TYPE_CHECKING:
    from ..runtime import Model

_FILE = click.Path(path_type=Path, dir_okay=False)
# Options that describe a layer of a state dict; runs and model files know them.
_LAYER_OPTIONS = (
    "output_size",
    "ode_unfolds",
    "epsilon",
    "implicit_param_constraints",
    "mode",
    "activation",
)
# What a model file says besides its layers.
_FACTS = ("time_unit", "input_names", "output_names")


def _names(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> list[str] | None:
    if value is None:
        return None
    # As a row of CSV, so that a name can hold a comma.
    return next(csv.reader([value], skipinitialspace=True), [])


@click.command()
@click.argument("source", type=click.Path(path_type=Path, exists=True))
@click.option("-o", "--out", type=_FILE, metavar="FILE", help="Model file to write (.safetensors).")
@click.option(
    "--c",
    "c_folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write C99 for microcontrollers: NAME.h and NAME.c.",
)
@click.option("--int8", is_flag=True, help="C of integers alone, with weights of 8 bits.")
@click.option("--fixed", is_flag=True, help="The same with weights of 16 bits.")
@click.option(
    "--calibration",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE",
    help="Observations as the device sees them, for --int8 and --fixed (.npy, .npz, .csv).",
)
@click.option("--onnx", "onnx_file", type=_FILE, metavar="FILE", help="Write an ONNX file.")
@click.option("--layer", metavar="NAME", help="Export this liquid layer of SOURCE only.")
@click.option(
    "--name", default="model", show_default=True, help="Prefix of the C functions and files."
)
@click.option(
    "--cc",
    metavar="COMMAND",
    help="Compiler to measure sizes with, as 'arm-none-eabi-gcc -mcpu=cortex-m4'.  [default: $CC, "
    "gcc or cc]",
)
@click.option(
    "--checkpoint",
    type=click.Choice(["best", "last"]),
    default="best",
    show_default=True,
    help="Of a run: the best epoch by validation, or the last.",
)
@click.option("--output-size", type=int, metavar="M", help="Motor neurons of an LTC without map.")
@click.option("--ode-unfolds", type=int, metavar="U", help="Of an LTC.  [default: 6]")
@click.option("--epsilon", type=float, help="Of an LTC.  [default: 1e-8]")
@click.option(
    "--implicit-param-constraints/--no-implicit-param-constraints",
    default=None,
    help="Whether an LTC has its softplus.  [default: yes for a layer, no for a cell]",
)
@click.option(
    "--mode",
    type=click.Choice(["default", "pure", "no_gate"]),
    help="Of a CfC.  [default: pure if it has w_tau, else default]",
)
@click.option(
    "--activation",
    type=click.Choice(["lecun_tanh", "silu", "relu", "tanh", "gelu"]),
    help="Of a CfC's backbone.  [default: lecun_tanh]",
)
@click.option(
    "--time-unit",
    type=float,
    metavar="SECONDS",
    help="Of a state dict: one unit of its time steps.  [default: 1]",
)
@click.option(
    "--input-names", callback=_names, metavar="A,B,..", help="Of a state dict: name its inputs."
)
@click.option(
    "--output-names", callback=_names, metavar="A,B,..", help="Of a state dict: name its outputs."
)
def export(
    source: Path,
    out: Path | None,
    c_folder: Path | None,
    int8: bool,
    fixed: bool,
    calibration: Path | None,
    onnx_file: Path | None,
    layer: str | None,
    name: str,
    cc: str | None,
    checkpoint: str,
    **options: Any,
) -> None:
    """Export a trained model to run without torch.

    SOURCE is a run folder of `fastltc train`, a file with the state dict of an LTC or CfC layer
    (.pt of torch.save, or .safetensors), or a model file. A state dict does not hold the options
    --ode-unfolds to --output-names: give those that were not the defaults. Stacks of layers are
    exported from Python: fastltc.export(module, "model.safetensors").
    """
    if out is None and c_folder is None and onnx_file is None:
        raise click.UsageError("nothing to write: give --out, --c or --onnx, or several of them")
    if int8 and fixed:
        raise click.UsageError("--int8, --fixed: give one of them")
    if (int8 or fixed) and c_folder is None:
        raise click.UsageError(f"{'--int8' if int8 else '--fixed'}: needs --c")
    if calibration is not None and not (int8 or fixed):
        raise click.UsageError("--calibration: needs --int8 or --fixed")
    given = {key: value for key, value in options.items() if value is not None}
    assert set(options) == {*_LAYER_OPTIONS, *_FACTS}
    model, metadata = _load(source, layer, checkpoint, given)
    from ..exporting.c_command import describe_in_lines, export_c

    for line in describe_in_lines(model):
        echo(line)
    if out is not None:
        from ..runtime import write_model

        write_model(model, out, metadata)
        echo(f"{out}: {out.stat().st_size:,} bytes")
    if c_folder is not None:
        integers = "int8" if int8 else "fixed" if fixed else None
        for line in export_c(model, c_folder, name, cc, integers, calibration):
            echo(line)
    if onnx_file is not None:
        from ..exporting.onnx_graph import OPSET, write_onnx

        try:
            write_onnx(model, onnx_file)
        except ImportError as error:
            raise click.ClickException(str(error)) from None
        echo(f"{onnx_file}: {onnx_file.stat().st_size:,} bytes, opset {OPSET}")


def _load(
    source: Path, layer: str | None, checkpoint: str, given: dict[str, Any]
) -> tuple[Model, dict[str, str]]:
    from ..exporting.descriptions import assemble
    from ..runtime.model_file import is_model_file, read_model

    flags = ", ".join(f"--{key.replace('_', '-')}" for key in given)
    if source.is_dir():
        if flags:
            raise click.UsageError(f"{flags}: a run folder knows its options")
        from ..jobs.export import describe_run

        return describe_run(source, layer, checkpoint=checkpoint)
    if is_model_file(source):
        if flags or layer is not None:
            raise click.UsageError(f"{flags or '--layer'}: a model file is exported as it is")
        return read_model(source), {}
    from ..exporting.state_dict import describe_state_dict, read_state_dict

    facts = {key: given.pop(key) for key in _FACTS if key in given}
    part = describe_state_dict(read_state_dict(source), layer, **given)
    kind = part.layer["type"]
    for key in given:
        if key not in part.layer or (key == "output_size" and kind != "ltc"):
            option = f"--{key.replace('_', '-')}"
            raise click.UsageError(f"{option}: no option of a layer of type {kind}")
    taken = {key: part.layer[key] for key in _LAYER_OPTIONS if key in part.layer}
    echo(
        "taken, as a state dict does not hold them: "
        + ", ".join(f"{key}={value}" for key, value in taken.items() if key != "output_size")
    )
    return assemble([part], **facts), {}
