"""The version of redy, in the one place from which packaging, `redy --version` and written metadata take it."""

__version__ = "0.1.0"
