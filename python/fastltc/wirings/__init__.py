"""Which neuron is connected with which.

The wirings of ncps are here under the name that a script expects when it changes its import, and
some more, all of them of ``ncps.wirings.Wiring``.
"""

from ncps.wirings import NCP, AutoNCP, FullyConnected, Random, Wiring

from fastltc.wirings.deep import DeepNCP
from fastltc.wirings.drawn import ConnectomeLike, SmallWorld
from fastltc.wirings.given import for_inputs, from_adjacency, from_networkx

__all__ = [
    "NCP",
    "AutoNCP",
    "ConnectomeLike",
    "DeepNCP",
    "FullyConnected",
    "Random",
    "SmallWorld",
    "Wiring",
    "for_inputs",
    "from_adjacency",
    "from_networkx",
]
