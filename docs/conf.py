"""Configuration of the documentation site: `make docs` builds it into build/docs."""

from __future__ import annotations

import os
from importlib.metadata import version as version_of
from pathlib import Path

project = "fastltc"
author = "The fastltc authors"
copyright = author
version = release = version_of("fastltc")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]
default_role = "literal"
nitpicky = True
# Types of other packages, whose documentation is not here, and of what no user needs.
nitpick_ignore_regex = [
    (r"py:.*", r"(torch|nn|np|numpy|os|ncps|collections|pathlib|typing)\b.*"),
    (r"py:class", r"(.*\.)?(CSource|Item|Matrix|Report|SequenceLayer|Wiring)"),
]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4

# Notebooks run while the site is built; FASTLTC_DOCS_QUICK=1 asks them for their short form, whose
# outputs are kept apart.
quick = os.environ.get("FASTLTC_DOCS_QUICK") == "1"
build = Path(__file__).resolve().parents[1] / "build"
nb_execution_mode = "cache"
nb_execution_cache_path = str(build / ("notebooks-quick" if quick else "notebooks"))
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"fastltc {release}"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
