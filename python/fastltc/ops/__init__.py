"""The compiled operators: registration with PyTorch's subsystems, and functions that call them."""

from fastltc._parameters import CFC_ACTIVATIONS, CFC_MODES, LTC_PARAMETERS
from fastltc.ops.cfc import cfc
from fastltc.ops.ltc import ltc
from fastltc.ops.masked_linear import masked_linear
from fastltc.ops.synapses import mask_entries, stacked_synapse_list, synapse_list

__all__ = [
    "CFC_ACTIVATIONS",
    "CFC_MODES",
    "LTC_PARAMETERS",
    "cfc",
    "ltc",
    "mask_entries",
    "masked_linear",
    "stacked_synapse_list",
    "synapse_list",
]
