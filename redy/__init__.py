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
    from redy.formats.frameworks import from_sklearn as from_sklearn
    from redy.formats.frameworks import from_torch as from_torch
    from redy.formats.onnx_read import read_network as read_network
    from redy.formats.onnx_write import write_network as write_network
    from redy.formats.properties import read_property as read_property
    from redy.model.box import Box as Box
    from redy.model.network import Network as Network
    from redy.model.property import Conjunction as Conjunction
    from redy.model.property import Property as Property
    from redy.model.verdict import Proved as Proved
    from redy.model.verdict import Refuted as Refuted
    from redy.model.verdict import Unknown as Unknown
    from redy.questions.prove import prove as prove
    from redy.reduction import Reduction as Reduction
    from redy.reduction import reduce as reduce
    from redy.reduction import write_reduction as write_reduction
    from redy.slicing.family import Family as Family
    from redy.slicing.pipeline import slice_network as slice_network
    from redy.version import __version__ as __version__

_HOMES = {
    "Box": "redy.model.box",
    "CheckFailed": "redy.errors",
    "Conjunction": "redy.model.property",
    "Family": "redy.slicing.family",
    "InputError": "redy.errors",
    "Network": "redy.model.network",
    "RedyError": "redy.errors",
    "Property": "redy.model.property",
    "Proved": "redy.model.verdict",
    "Reduction": "redy.reduction",
    "Refuted": "redy.model.verdict",
    "Unknown": "redy.model.verdict",
    "Unsupported": "redy.errors",
    "__version__": "redy.version",
    "from_sklearn": "redy.formats.frameworks",
    "from_torch": "redy.formats.frameworks",
    "prove": "redy.questions.prove",
    "read_property": "redy.formats.properties",
    "read_box": "redy.formats.boxes",
    "read_boxes": "redy.formats.boxes",
    "read_network": "redy.formats.onnx_read",
    "reduce": "redy.reduction",
    "slice_network": "redy.slicing.pipeline",
    "write_reduction": "redy.reduction",
    "write_network": "redy.formats.onnx_write",
}
"""Public name -> the module that defines it."""

__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'redy' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)
