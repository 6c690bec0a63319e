"""For tools that still call setup.py; pip and build use the backend in pyproject.toml."""

from scikit_build_core.setuptools.wrapper import setup

setup()
