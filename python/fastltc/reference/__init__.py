"""The operators in plain PyTorch: short, differentiable, and what the kernels are measured by."""

from fastltc.reference.cfc import cfc
from fastltc.reference.ltc import ltc
from fastltc.reference.memory import memory_cell

__all__ = ["cfc", "ltc", "memory_cell"]
