"""A quick start of the command line: what numba loads for compiling is left out while kernels come from its cache.

Nothing here is done in a program that uses redy: there numba belongs to that program.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import FrameType, ModuleType
from typing import Any

_ASKS = "numba.np.linalg"
"""The module of numba that imports SciPy only to know whether there is a BLAS for `np.dot` in compiled code."""
_owned = False


def own_process() -> None:
    """For the process of the command line, before anything else: it ends with the command."""
    global _owned  # noqa: PLW0603 - a fact about the process
    if not _owned:
        _owned = True
        sys.meta_path.insert(0, _NoBlas())


class _NoBlas(MetaPathFinder):
    """Tells numba, and nobody else, that there is no BLAS: importing SciPy's takes a tenth of a second."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - importlib's signature
        target: ModuleType | None = None,  # noqa: ARG002 - as above
    ) -> ModuleSpec | None:
        """Refuse SciPy's BLAS to the module that asks for it; leave everything else to the other finders."""
        if fullname == "scipy.linalg" and _importer(sys._getframe(1)) == _ASKS:  # noqa: SLF001 - no other way to know
            raise ModuleNotFoundError("not needed for redy's kernels", name=fullname)
        return None


def _importer(frame: FrameType | None) -> str:
    """The name of the module whose import statement led here."""
    while frame is not None and frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return "" if frame is None else str(frame.f_globals.get("__name__", ""))


def without_registries() -> None:
    """Where the process is redy's own: what numba knows of types and functions is loaded when something is compiled.

    Machine code from the cache needs none of it, and loading it takes a quarter of a second.
    """
    if not _owned:
        return
    from numba.core import cpu, event  # noqa: PLC0415 - numba is loaded late, by the kernels
    from numba.core.registry import cpu_target  # noqa: PLC0415
    from numba.core.typing import context  # noqa: PLC0415

    places: tuple[tuple[Any, str], ...] = (
        (cpu.CPUContext, "load_additional_registries"),
        (context.Context, "load_additional_registries"),
        (context.BaseContext, "_load_builtins"),
    )
    # What another version of numba does not have is not left out.
    left_out = [(owner, name, getattr(owner, name)) for owner, name in places if hasattr(owner, name)]
    for owner, name, _ in left_out:
        setattr(owner, name, _nothing)

    class Compiling(event.Listener):
        """Puts back what was left out before the first function is compiled."""

        def on_start(self, event: Any) -> None:  # noqa: ARG002 - numba's signature
            if not left_out:
                return
            while left_out:
                owner, name, function = left_out.pop()
                setattr(owner, name, function)
            cpu_target.typing_context.refresh()
            cpu_target.target_context.refresh()

        def on_end(self, event: Any) -> None:
            """Nothing to do."""

    event.register("numba:compile", Compiling())  # type: ignore[no-untyped-call]


def _nothing(context: object) -> None:
    """In place of what loads registries."""
