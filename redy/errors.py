"""The errors that redy raises on purpose; the command line turns each into one line and an exit code."""

from __future__ import annotations


class RedyError(Exception):
    """Base of every error redy raises on purpose; its text is one line meant for the user."""

    exit_code = 1


class InputError(RedyError):
    """A file, option or value given by the user cannot be used (exit code 2).

    The text names the file, the place in it, and what to do.
    """

    exit_code = 2


class Unsupported(InputError):
    """A proof would need something of the network that redy cannot bound; the text names the node."""


class CheckFailed(RedyError):
    """An internal check failed; nothing was written (exit code 1)."""
