"""The operators in plain PyTorch: short, differentiable, and what the kernels are measured by."""

from fastltc.reference.cfc import cfc
from fastltc.reference.ltc import ltc

__all__ = ["cfc", "ltc"]
