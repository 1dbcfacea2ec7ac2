"""Compiling the kernels: once on a machine, and logging so; then their machine code comes from numba's cache on disk.

numba asks of a cached function only whether its own file has changed, not whether the functions compiled into it have.
Old machine code of a kernel would then go on proving after the kernel was corrected. So the cache lies in a folder
named by the digest of all sources beside this one: one changed byte, and everything is compiled afresh.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numba
from numba.core import event

from redy.condensed.kernels.start import without_registries

_COMPILE = "numba:compile"
"""Sent before a function is compiled, and not when it is loaded from the cache."""
SECONDS = 10
"""What compiling every kernel takes on one core of today, roughly."""

_log = logging.getLogger("redy")
without_registries()
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


_names: list[str] = []
"""The kernels that Python calls, as numba names their files."""


def compiled(function: Callable[..., Any] | None = None, *, inner: bool = False, inline: bool = False) -> Any:
    """`numba.njit` with strict floating point, cached in `cache_folder`.

    Kernels allocate nothing, so they are compiled without numba's reference counts: a third less code. What they divide
    by is never zero, so there are no checks of that either. Numbers that start at a constant are written
    `np.int64(0)`: numba would compile what they are passed to once for the constant and once for a number.

    Args:
        function: what is compiled.
        inner: called from other kernels only: what Python would need to call it is not compiled.
        inline: its code becomes part of its callers.
    """
    if function is None:
        return partial(compiled, inner=inner, inline=inline)
    options: dict[str, Any] = {
        "no_cpython_wrapper": inner,
        "no_cfunc_wrapper": True,
        "_nrt": False,
        "error_model": "numpy",
        "inline": "always" if inline else "never",
    }
    if not inner:
        _names.append(f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}")
    before = _config.CACHE_DIR
    _config.CACHE_DIR = str(cache_folder())
    try:
        decorate: Any = numba.njit(cache=not inner, **options)
        return decorate(function)
    finally:
        _config.CACHE_DIR = before


class _Announce(event.Listener):
    """Logs one line when the first kernel of a process is compiled."""

    said = False

    def on_start(self, event: Any) -> None:
        dispatcher = (event.data or {}).get("dispatcher")
        if not self.said and dispatcher is not None and dispatcher.py_func.__module__.startswith(__package__):
            self.said = True
            _log.info("compiling the kernels of the search: about %d s, once on this machine", SECONDS)

    def on_end(self, event: Any) -> None:
        """Nothing to say: the next step announces itself."""


event.register(_COMPILE, _Announce())  # type: ignore[no-untyped-call]


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
    """Whether machine code of every kernel that has been imported lies in the cache."""
    found = {path.name.rpartition("-")[0] for path in cache_folder().rglob("*.nbi")}
    return found >= set(_names)
