"""Modules that take the place of those of ``ncps.torch``."""

from fastltc.nn.lstm_cell import LSTMCell
from fastltc.nn.ltc import LTC
from fastltc.nn.ltc_cell import LTCCell
from fastltc.nn.wiring import synapse_list

__all__ = ["LTC", "LSTMCell", "LTCCell", "synapse_list"]
