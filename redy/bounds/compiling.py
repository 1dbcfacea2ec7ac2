"""Saying so when a kernel is compiled: once on a machine, then its machine code comes from numba's cache on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from numba.core import event

_COMPILE = "numba:compile"
"""Sent before a function is compiled, and not when it is loaded from the cache."""


class _Announce(event.Listener):
    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._said = False

    def on_start(self, event: object) -> None:
        del event
        if not self._said:
            self._said = True
            self._say("compiling kernels, once on this machine")

    def on_end(self, event: object) -> None:
        """Nothing to say: the next step announces itself."""


@contextmanager
def announced(say: Callable[[str], None]) -> Iterator[None]:
    """Inside, `say` is called with one line if something has to be compiled."""
    with event.install_listener(_COMPILE, _Announce(say)):
        yield
