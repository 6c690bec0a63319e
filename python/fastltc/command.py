"""The ``fastltc`` command of ``fastltc-runtime``: what needs numpy and safetensors alone."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; a user's mistake is one message and exit status 1."""
    from .exporting.errors import ExportError
    from .runtime.model import ModelFileError

    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (ExportError, ModelFileError, OSError) as error:
        if options.traceback:
            raise
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


def _parser() -> argparse.ArgumentParser:
    from ._version import own_version

    parser = argparse.ArgumentParser(
        prog="fastltc",
        description="Trained liquid neural networks without torch; all of fastltc trains them too.",
    )
    parser.add_argument("--version", action="version", version=f"fastltc {own_version()}")
    parser.add_argument("--traceback", action="store_true", help="show where an error was raised")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    export = commands.add_parser("export", help="write a model file as C99 for microcontrollers")
    export.set_defaults(run=_export)
    export.add_argument("source", type=Path, metavar="MODEL", help="a model file (.safetensors)")
    export.add_argument(
        "--c",
        dest="folder",
        type=Path,
        required=True,
        metavar="DIR",
        help="where NAME.h, NAME.c go",
    )
    export.add_argument("--name", default="model", help="prefix of functions and files [model]")
    export.add_argument("--cc", metavar="COMMAND", help="compiler to measure sizes with")
    kind = export.add_mutually_exclusive_group()
    for option, what in (("int8", "weights of 8 bits"), ("fixed", "weights of 16 bits")):
        kind.add_argument(
            f"--{option}",
            dest="integers",
            action="store_const",
            const=option,
            help=f"compute with integers alone: {what}",
        )
    export.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="observations as the device sees them, for integers (.npy, .npz, .csv)",
    )
    info = commands.add_parser("info", help="print version and instruction sets")
    info.set_defaults(run=_info)
    info.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _export(options: argparse.Namespace) -> None:
    from .exporting.c_command import describe_in_lines, export_c
    from .exporting.errors import ExportError
    from .runtime.model_file import read_model

    model = read_model(options.source)
    for line in describe_in_lines(model):
        print(line)
    if options.calibration is not None and options.integers is None:
        raise ExportError("calibration: expected --int8 or --fixed with it")
    integers = options.integers, options.calibration
    for line in export_c(model, options.folder, options.name, options.cc, *integers):
        print(line)


def _info(options: argparse.Namespace) -> None:
    from . import info

    collected = info.collect()
    print(json.dumps(collected, indent=2) if options.json else info.format_report(collected))


if __name__ == "__main__":
    main()
