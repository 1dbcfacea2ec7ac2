"""Properties of networks from VNN-LIB files."""

from __future__ import annotations

import os
from pathlib import Path

from redy.formats.files import read_text
from redy.formats.vnnlib import property_from_vnnlib
from redy.model.property import Property


def read_property(path: str | os.PathLike[str], input_shape: tuple[int, ...], outputs: int) -> Property:
    """The property that a VNN-LIB file describes, also one compressed by gzip.

    The assertions of the file describe the unsafe set: the network has the property if no input satisfies them
    together with its outputs. Equal conjunctions come once, contradictory ones are left out.

    Args:
        path: the file.
        input_shape: the shape of one input sample; its elements are X_0, X_1, ... in C order.
        outputs: the number of output elements Y_0, Y_1, ..., all outputs flattened, one after the other.

    Raises:
        InputError: the file cannot be read, the syntax is wrong, a term is not linear, an input lacks a bound, or the
            variables are not those of the network; the line or the input is named.
    """
    path = Path(path)
    text = read_text(path, "a property", "give the path of a VNN-LIB file")
    return property_from_vnnlib(text, str(path), input_shape, outputs, path.name)
