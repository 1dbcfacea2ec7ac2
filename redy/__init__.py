"""Proves which neurons of an ONNX network are not needed on an input box, and writes the smaller network.

The names below are imported when they are first used, so that `import redy` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from redy.version import __version__

if TYPE_CHECKING:
    from redy.formats.onnx_read import read_network
    from redy.formats.onnx_write import write_network
    from redy.model import Box, Network

_HOMES = {
    "Box": "redy.model",
    "Family": "redy.slicing",
    "Network": "redy.model",
    "Reduction": "redy.reduction",
    "read_box": "redy.formats.boxes",
    "read_network": "redy.formats.onnx_read",
    "reduce": "redy.reduction",
    "write_network": "redy.formats.onnx_write",
}

__all__ = ["Box", "Network", "__version__", "read_network", "write_network"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module's attributes have no common type
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'redy' has no attribute {name!r}")
    try:
        found = getattr(importlib.import_module(home), name)
    except ModuleNotFoundError as error:
        raise AttributeError(f"redy.{name} is not available: {error}") from error
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
