"""Liquid networks as estimators of scikit-learn: for classes, for values, and for what comes next.

They are the models ``series-ltc`` and ``series-cfc`` of `fastltc.jobs`, trained by its loop; the
parameters are options of ``fastltc train``.
"""

from __future__ import annotations

from .estimators import LiquidClassifier, LiquidRegressor
from .forecaster import LiquidForecaster

__all__ = ["LiquidClassifier", "LiquidForecaster", "LiquidRegressor"]
