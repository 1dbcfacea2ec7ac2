"""The part of a model before a hidden layer whose values are cut."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from redy.errors import CheckFailed, InputError
from redy.formats.onnx_read import read_network
from redy.model import Box, Network
from redy.rewrite import fuse
from redy.slicing.program import Program, program_of


@dataclass(frozen=True, eq=False)
class Front:
    """The part of a model before the layer whose values are cut.

    Attributes:
        model: as ONNX bytes; its output is the input of the family's network.
        box: the inputs for which the family holds.
    """

    model: bytes
    box: Box

    @cached_property
    def network(self) -> Network:
        """As a network."""
        return read_network(onnx.load_model_from_string(self.model))

    @cached_property
    def program(self) -> Program | None:
        """As a program, if it is dense: the C99 export then computes the very same hidden values."""
        try:
            return program_of(fuse(self.network), self.network.weight_dtype)
        except InputError:
            return None

    def hidden(self, x: NDArray[Any], within: Box) -> NDArray[Any]:
        """The hidden values (n, units) at checked points (n, inputs), in the type of the points.

        A front that is not dense is evaluated in float64, and its values rounded.
        """
        if self.program is not None:
            flat = self.program.evaluate(x)
        else:
            values = self.network.evaluate(x.astype(np.float64).reshape(-1, *self.network.input.shape))
            flat = values.reshape(len(x), -1).astype(x.dtype)
        if not within.contains(flat.astype(np.float64).reshape(-1, *within.shape)).all():
            raise CheckFailed("a hidden value lies outside its bounds; this is a bug in redy")
        return flat
