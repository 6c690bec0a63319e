"""Modules that take the place of those of ``ncps.torch``."""

from fastltc.nn.cfc import CfC
from fastltc.nn.cfc_cell import CfCCell
from fastltc.nn.lstm_cell import LSTMCell
from fastltc.nn.ltc import LTC
from fastltc.nn.ltc_cell import LTCCell
from fastltc.nn.wired_cfc_cell import WiredCfCCell
from fastltc.nn.wiring import synapse_list

__all__ = ["CfC", "CfCCell", "LTC", "LSTMCell", "LTCCell", "WiredCfCCell", "synapse_list"]
