"""Configuration of the documentation site: `make docs` builds it into build/docs."""

from __future__ import annotations

import os
import re
import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from fastltc.jobs.data import DataError, load_data

project = "fastltc"
author = "The fastltc authors"
copyright = author
version = release = version_of("fastltc")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx-mathjax-offline",
    "sphinx_copybutton",
    "sphinx_design",
]
default_role = "literal"
highlight_language = "text"
nitpicky = True
# Types of other packages, whose documentation is not here, and of what no user needs.
nitpick_ignore_regex = [
    (r"py:.*", r"(torch|nn|np|npt|numpy|os|ncps|collections|pathlib|typing)\b.*"),
    (
        r"py:class",
        r"(.*\.)?(CSource|IntegerError|IntegerSource|Item|Layer|Matrix|Report|SequenceLayer|Wiring)",
    ),
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
# Notebooks call the command `fastltc` of this environment, also where it is not activated.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
# The only data that is not in a package: without it the page is shown as it is written.
try:
    load_data("breastmnist", os.environ.get("FASTLTC_DATA_ROOT"))
except DataError as error:
    print(f"tutorials/breastmnist.md is not run: {error}")
    nb_execution_excludepatterns = ["tutorials/breastmnist.md"]

autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False


def link_pages(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Link the pages that docstrings name as files, which they are for whoever reads the code."""
    lines[:] = [re.sub(r"\bdocs/([\w-]+)\.md", r":doc:`/\1`", line) for line in lines]


def setup(app: Any) -> None:
    """Change docstrings for this site."""
    app.connect("autodoc-process-docstring", link_pages)


html_theme = "furo"
pygments_dark_style = "github-dark"
html_title = f"fastltc {release}"
# Lines of 100 characters fit into the page.
html_static_path, html_css_files = ["_static"], ["site.css"]
html_theme_options = {"light_css_variables": {"code-font-size": "0.75rem"}}
if quick:
    html_theme_options["announcement"] = (
        "Built in short form: outputs of the tutorials mean nothing."
    )
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
