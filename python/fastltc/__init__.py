"""Liquid neural networks (LTC, CfC, NCP wirings) as quick to train and run as an LSTM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _lazy, _version

if TYPE_CHECKING:
    from fastltc.dropin.accelerate import accelerate as accelerate
    from fastltc.dropin.patch import patch_ncps as patch_ncps
    from fastltc.exporting import export as export
    from fastltc.exporting import onnx_translations as onnx_translations
    from fastltc.nn import LTC as LTC
    from fastltc.nn import Bidirectional as Bidirectional
    from fastltc.nn import CfC as CfC
    from fastltc.nn import CfCCell as CfCCell
    from fastltc.nn import Impute as Impute
    from fastltc.nn import LTCCell as LTCCell
    from fastltc.nn import MaskedLinear as MaskedLinear
    from fastltc.nn import ParallelCfC as ParallelCfC
    from fastltc.nn import ParallelLTC as ParallelLTC
    from fastltc.nn import Sequential as Sequential
    from fastltc.nn import WiredCfCCell as WiredCfCCell
    from fastltc.ops.precision import get_sigmoid_precision as get_sigmoid_precision
    from fastltc.ops.precision import set_sigmoid_precision as set_sigmoid_precision
    from fastltc.ops.precision import sigmoid_precision as sigmoid_precision

# Everything is imported at first use, so that the parts that need no torch import where none is
# installed. Public name -> module that defines it:
_EXPORTS: dict[str, str] = {
    "LTC": "fastltc.nn",
    "LTCCell": "fastltc.nn",
    "CfC": "fastltc.nn",
    "CfCCell": "fastltc.nn",
    "WiredCfCCell": "fastltc.nn",
    "MaskedLinear": "fastltc.nn",
    "ParallelCfC": "fastltc.nn",
    "ParallelLTC": "fastltc.nn",
    "Bidirectional": "fastltc.nn",
    "Impute": "fastltc.nn",
    "Sequential": "fastltc.nn",
    "get_sigmoid_precision": "fastltc.ops.precision",
    "set_sigmoid_precision": "fastltc.ops.precision",
    "sigmoid_precision": "fastltc.ops.precision",
    "accelerate": "fastltc.dropin.accelerate",
    "patch_ncps": "fastltc.dropin.patch",
    "export": "fastltc.exporting",
    "onnx_translations": "fastltc.exporting",
}
_SUBMODULES = (
    "dropin",
    "exporting",
    "info",
    "inspect",
    "nn",
    "ops",
    "reference",
    "runtime",
    "wirings",
)

__all__ = ["__version__", *_EXPORTS, *_SUBMODULES]

_get, _names = _lazy.lazy_names(__name__, globals(), _EXPORTS, _SUBMODULES)


def __getattr__(name: str) -> Any:
    return _version.own_version() or "unknown" if name == "__version__" else _get(name)


def __dir__() -> list[str]:
    return ["__version__", *_names()]
