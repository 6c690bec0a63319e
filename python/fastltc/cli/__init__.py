"""The ``fastltc`` command: a module for each subject, `main` puts them together."""
