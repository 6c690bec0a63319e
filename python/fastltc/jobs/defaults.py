"""Defaults that functions share with the command line, which has them before NumPy is imported."""

from __future__ import annotations

SHARES = (0.7, 0.1, 0.2)
"""Of train, val and test in a split that is made here."""
NEAR_BITS = 6
"""Bits of 64 in which perceptual hashes may differ. Unrelated pictures differ in about 32."""
RECALLS = (0.95, 0.999)
"""At which the precision is reported."""
RESAMPLES = 1000
"""Of the bootstrap."""
