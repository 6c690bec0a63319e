"""Where ``fastltc-runtime`` keeps the part of ``fastltc`` that needs no torch.

Importing this puts that part behind everything else on ``sys.path``, so that ``import fastltc`` is
the whole of it where ``fastltc`` is installed too. ``fastltc_runtime.pth`` has done so already
where Python reads such files; folders that ``pip install --target`` fills are not among those.
"""

from __future__ import annotations

import os
import sys

_FOLDER = os.path.dirname(os.path.abspath(__file__))
if _FOLDER not in map(os.path.abspath, sys.path):
    sys.path.append(_FOLDER)
