"""redy proves which neurons of an ONNX network are not needed on a box of inputs, and writes the smaller network.

The names of the public interface are imported when they are first used, so that `import redy` costs little.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redy.errors import CheckFailed as CheckFailed
    from redy.errors import InputError as InputError
    from redy.errors import RedyError as RedyError
    from redy.errors import Unsupported as Unsupported
    from redy.formats.boxes import read_box as read_box
    from redy.formats.boxes import read_boxes as read_boxes
    from redy.model.box import Box as Box
    from redy.version import __version__ as __version__

_HOMES = {
    "Box": "redy.model.box",
    "CheckFailed": "redy.errors",
    "InputError": "redy.errors",
    "RedyError": "redy.errors",
    "Unsupported": "redy.errors",
    "__version__": "redy.version",
    "read_box": "redy.formats.boxes",
    "read_boxes": "redy.formats.boxes",
}
"""Public name -> the module that defines it."""

__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'redy' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)
