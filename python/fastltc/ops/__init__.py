"""The compiled operators: registration with PyTorch's subsystems, and functions that call them."""

from fastltc.ops.cfc import CFC_ACTIVATIONS, CFC_MODES, cfc
from fastltc.ops.ltc import LTC_PARAMETERS, ltc

__all__ = ["CFC_ACTIVATIONS", "CFC_MODES", "LTC_PARAMETERS", "cfc", "ltc"]
