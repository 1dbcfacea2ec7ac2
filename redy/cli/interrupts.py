"""Ctrl-C that is not lost: while kernels are compiled, an exception raised in a callback of the compiler is.

The signal is remembered as well as raised, and `check` raises it again at the next step.
"""

from __future__ import annotations

import signal
from types import FrameType

_seen: list[int] = []


def install() -> None:
    """Remember Ctrl-C from now on; for the main thread of a process that is redy's own."""
    signal.signal(signal.SIGINT, _remember)


def check() -> None:
    """Raise a Ctrl-C whose exception was lost.

    Raises:
        KeyboardInterrupt: there was one.
    """
    if _seen:
        raise KeyboardInterrupt


def _remember(number: int, frame: FrameType | None) -> None:
    del frame
    _seen.append(number)
    raise KeyboardInterrupt
