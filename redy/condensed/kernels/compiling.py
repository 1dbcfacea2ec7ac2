"""Compiling the kernels: once on a machine, and saying so; then their machine code comes from numba's cache on disk.

numba asks of a cached function only whether its own file has changed, not whether the functions compiled into it have.
Old machine code of a kernel would then go on proving after the kernel was corrected. So the cache lies in a folder
named by the digest of all sources beside this one: one changed byte, and everything is compiled afresh.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import numba
from numba.core import event

_COMPILE = "numba:compile"
"""Sent before a function is compiled, and not when it is loaded from the cache."""


_config: Any = numba.config


@lru_cache(maxsize=1)
def cache_folder() -> Path:
    """Where machine code of these very sources is kept: in NUMBA_CACHE_DIR, beside them, or with the user's caches."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    if _config.CACHE_DIR:
        return Path(_config.CACHE_DIR) / f"redy-{digest}"
    beside = Path(__file__).parent
    if os.access(beside, os.W_OK):
        return beside / "__pycache__" / digest
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "redy" / digest


def compiled(function: Callable[..., Any] | None = None, *, inline: Literal["never", "always"] = "never") -> Any:
    """`numba.njit` with strict floating point, cached in `cache_folder`."""
    if function is None:
        return partial(compiled, inline=inline)
    before = _config.CACHE_DIR
    folder = str(cache_folder())
    _config.CACHE_DIR = folder
    try:
        return numba.njit(cache=True, inline=inline)(function)
    finally:
        _config.CACHE_DIR = before


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


class _Around(event.Listener):
    def __init__(self, begin: Callable[[], None], end: Callable[[], None]) -> None:
        self._begin, self._end, self._depth = begin, end, 0

    def on_start(self, event: object) -> None:
        del event
        self._depth += 1
        if self._depth == 1:
            self._begin()

    def on_end(self, event: object) -> None:
        del event
        self._depth -= 1
        if self._depth == 0:
            self._end()


@contextmanager
def around_compiling(begin: Callable[[], None], end: Callable[[], None]) -> Iterator[None]:
    """Inside, `begin` is called before something is compiled and `end` after it, once for nested compilations."""
    with event.install_listener(_COMPILE, _Around(begin, end)):
        yield


def is_compiled() -> bool:
    """Whether machine code of these sources lies in the cache; single kernels may still be missing."""
    return any(cache_folder().rglob("*.nbc"))
