"""Names, shapes and options of the liquid layers' parameters; needs no torch."""

from __future__ import annotations

from typing import NamedTuple


class LTCParameter(NamedTuple):
    """A row of the table of LTC's parameters."""

    name: str
    shape: str
    """``"N"``; of synapses ``"NN"`` and ``"IN"``; of the maps, which need not be there, ``"I"`` and
    ``"M"``."""
    drawn: tuple[float, float] | None = None
    """The range of its first values; of others, the wiring or the map has them."""
    positive: bool = False
    """Whether it passes through the softplus."""


# As FASTLTC_LTC_PARAMETERS in csrc/core/ltc_problem.h.
LTC_TABLE = (
    LTCParameter("gleak", "N", (0.001, 1.0), positive=True),
    LTCParameter("vleak", "N", (-0.2, 0.2)),
    LTCParameter("cm", "N", (0.4, 0.6), positive=True),
    LTCParameter("sigma", "NN", (3, 8)),
    LTCParameter("mu", "NN", (0.3, 0.8)),
    LTCParameter("w", "NN", (0.001, 1.0), positive=True),
    LTCParameter("erev", "NN"),
    LTCParameter("sensory_sigma", "IN", (3, 8)),
    LTCParameter("sensory_mu", "IN", (0.3, 0.8)),
    LTCParameter("sensory_w", "IN", (0.001, 1.0), positive=True),
    LTCParameter("sensory_erev", "IN"),
    LTCParameter("input_w", "I"),
    LTCParameter("input_b", "I"),
    LTCParameter("output_w", "M"),
    LTCParameter("output_b", "M"),
)
"""The parameters, in the order in which the operators take them."""

LTC_PARAMETERS = tuple(row.name for row in LTC_TABLE)
"""Their names."""

LTC_MASKS = {"sparsity_mask": "NN", "sensory_sparsity_mask": "IN"}
"""The masks of the synapses, and their shapes."""

CFC_HEADS = ("ff1", "ff2", "time_a", "time_b")
"""The linear maps of a CfC cell; with mode ``"pure"`` it has the first alone."""

CFC_MODES = ("default", "no_gate", "pure")
"""Names of the modes; the operators take the position."""

IMPUTE_METHODS = ("forward", "mean", "decay")
"""Ways to fill in what is missing."""

CFC_ACTIVATIONS = ("lecun_tanh", "silu", "relu", "tanh", "gelu")
"""Names of the activations of the backbone; the operators take the position."""

SIGMOID_PRECISIONS = ("highest", "medium")
"""How precisely the sigmoids of synapses are computed; the first is the default."""
