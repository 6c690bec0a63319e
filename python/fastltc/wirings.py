"""The wirings of ncps, under the name a script that changes its import expects them."""

from ncps.wirings import NCP, AutoNCP, FullyConnected, Random, Wiring

__all__ = ["NCP", "AutoNCP", "FullyConnected", "Random", "Wiring"]
