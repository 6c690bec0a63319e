"""Modules that take the place of those of ``ncps.torch``."""

from fastltc.nn.bidirectional import Bidirectional
from fastltc.nn.cfc import CfC
from fastltc.nn.cfc_cell import CfCCell
from fastltc.nn.fan_in import init_by_fan_in
from fastltc.nn.impute import Impute
from fastltc.nn.lstm_cell import LSTMCell
from fastltc.nn.ltc import LTC
from fastltc.nn.ltc_cell import LTCCell
from fastltc.nn.masked_linear import MaskedLinear
from fastltc.nn.parallel_cfc import ParallelCfC
from fastltc.nn.parallel_ltc import ParallelLTC
from fastltc.nn.pruning import prune_synapses, regrow_synapses
from fastltc.nn.sequential import Sequential
from fastltc.nn.wired_cfc_cell import WiredCfCCell
from fastltc.ops.synapses import synapse_list

__all__ = [
    "Bidirectional",
    "CfC",
    "CfCCell",
    "Impute",
    "LTC",
    "LSTMCell",
    "LTCCell",
    "MaskedLinear",
    "ParallelCfC",
    "ParallelLTC",
    "Sequential",
    "WiredCfCCell",
    "init_by_fan_in",
    "prune_synapses",
    "regrow_synapses",
    "synapse_list",
]
