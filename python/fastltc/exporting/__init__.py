"""Models that leave torch: for the runtime, for microcontrollers, for ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastltc import _lazy

if TYPE_CHECKING:
    from fastltc.exporting.c_source import write_c as write_c
    from fastltc.exporting.descriptions import describe as describe
    from fastltc.exporting.errors import ExportError as ExportError
    from fastltc.exporting.int_export import write_integer_c as write_integer_c
    from fastltc.exporting.int_ranges import Calibration as Calibration
    from fastltc.exporting.modules import export as export
    from fastltc.exporting.onnx_graph import write_onnx as write_onnx
    from fastltc.exporting.onnx_operators import onnx_translations as onnx_translations

# Public name -> module that defines it. The C of a model file needs no torch.
_EXPORTS: dict[str, str] = {
    "Calibration": "fastltc.exporting.int_ranges",
    "ExportError": "fastltc.exporting.errors",
    "describe": "fastltc.exporting.descriptions",
    "export": "fastltc.exporting.modules",
    "onnx_translations": "fastltc.exporting.onnx_operators",
    "write_c": "fastltc.exporting.c_source",
    "write_integer_c": "fastltc.exporting.int_export",
    "write_onnx": "fastltc.exporting.onnx_graph",
}

__all__ = [*_EXPORTS]

__getattr__, __dir__ = _lazy.lazy_names(__name__, globals(), _EXPORTS, ())
