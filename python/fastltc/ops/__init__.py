"""The compiled operators: registration with PyTorch's subsystems, and functions that call them."""

from fastltc.ops.ltc import LTC_PARAMETERS, ltc

__all__ = ["LTC_PARAMETERS", "ltc"]
