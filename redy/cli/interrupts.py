"""Ctrl-C that is not lost: while kernels are compiled, an exception raised in a callback of the compiler is.

The signal is remembered as well as raised, and `check` raises it again at the next step.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_seen: list[int] = []


def install() -> None:
    """Remember Ctrl-C from now on; for the main thread of a process that is redy's own."""
    signal.signal(signal.SIGINT, _remember)


def check() -> None:
    """Raise a Ctrl-C whose exception was lost, in the main thread; other threads finish what they keep.

    Raises:
        KeyboardInterrupt: there was one.
    """
    if _seen and threading.current_thread() is threading.main_thread():
        raise KeyboardInterrupt


@contextmanager
def explained(what: Callable[[], str]) -> Iterator[None]:
    """A Ctrl-C inside ends the command with the text of `what`: what is kept, and how to go on."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(what()) from error


def _remember(number: int, frame: FrameType | None) -> None:
    del frame
    _seen.append(number)
    raise KeyboardInterrupt
