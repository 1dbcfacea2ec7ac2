"""A property of one network: a set of inputs and outputs that the network must never reach.

The unsafe set is a union of conjunctions, each a box of inputs and linear constraints on inputs x and outputs y:

    x in box    and    A x + B y + c <= 0 (row by row; < 0 where a row is strict).

The property holds if no input of any of the boxes satisfies all constraints of its conjunction. This is what the
`assert`s of a VNN-LIB file say together (https://www.vnnlib.org).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

from redy.model.box import Array, Box, frozen


@dataclass(frozen=True, slots=True, eq=False)
class Conjunction:
    """One part of the unsafe set.

    Attributes:
        box: the inputs; a strict bound of an input is a strict constraint besides.
        inputs: (k, n) A, by inputs in C order; outputs: (k, m) B, by all outputs flattened, one after the other.
        constants: (k,) c.
        strict: (k,) whether a row is "< 0" and not "<= 0".

    Raises:
        ValueError: the shapes do not fit together, or a number is not finite.
    """

    box: Box
    inputs: Array
    outputs: Array
    constants: Array
    strict: NDArray[np.bool_]

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", _rows(self.inputs))
        object.__setattr__(self, "outputs", _rows(self.outputs))
        object.__setattr__(self, "constants", frozen(self.constants))
        strict = np.array(self.strict, dtype=np.bool_)
        strict.flags.writeable = False
        object.__setattr__(self, "strict", strict)
        count = len(self.constants)
        if self.inputs.shape != (count, self.box.size) or len(self.outputs) != count or strict.shape != (count,):
            raise ValueError(
                f"{count} constants need {count} rows over {self.box.size} inputs, as many over outputs, and signs; "
                f"found {self.inputs.shape}, {self.outputs.shape} and {strict.shape}"
            )
        if not all(np.isfinite(part).all() for part in (self.inputs, self.outputs, self.constants)):
            raise ValueError("every coefficient must be a finite number")

    def values(self, x: Array, y: Array) -> Array:
        """(points, k) A x + B y + c in float64 for inputs (points, *input shape) and outputs (points, m)."""
        return np.asarray(x.reshape(len(x), -1) @ self.inputs.T + y @ self.outputs.T + self.constants)

    def met_by(self, x: Array, y: Array) -> bool:
        """Whether one input (n,) and its outputs (m,), floats of any width, are unsafe, in rational arithmetic."""
        x, y = np.asarray(x, dtype=np.float64).ravel(), np.asarray(y, dtype=np.float64).ravel()
        if not (np.isfinite(x).all() and np.isfinite(y).all() and self.box.contains(x.reshape(1, *self.box.shape))[0]):
            return False
        for row in range(len(self.constants)):
            value = Fraction(float(self.constants[row])) + _dot(self.inputs[row], x) + _dot(self.outputs[row], y)
            if value > 0 or (value == 0 and self.strict[row]):
                return False
        return True


@dataclass(frozen=True, slots=True, eq=False)
class Property:
    """The unsafe set: no conjunction may be met.

    Attributes:
        conjunctions: the parts of the unsafe set; without any the property holds.
        name: what reports call it, such as the name of its file.
    """

    conjunctions: tuple[Conjunction, ...]
    name: str = "property"

    def __str__(self) -> str:
        """The claim in words."""
        return f"{self.name}: no input of {len(self.boxes())} box(es) is unsafe"

    def boxes(self) -> dict[Box, list[Conjunction]]:
        """The different boxes, in order, with the conjunctions on each."""
        found: dict[Box, list[Conjunction]] = {}
        for conjunction in self.conjunctions:
            found.setdefault(conjunction.box, []).append(conjunction)
        return found

    def hull(self) -> Box:
        """The smallest box that holds all inputs of the property; there must be a conjunction."""
        lower, upper = (np.stack([getattr(c.box, end) for c in self.conjunctions]) for end in ("lower", "upper"))
        return Box(lower.min(axis=0), upper.max(axis=0))

    def __iter__(self) -> Iterator[Conjunction]:
        return iter(self.conjunctions)


def _rows(values: ArrayLike) -> Array:
    """A matrix that cannot be written to; one of zeros costs no memory."""
    array = np.asarray(values, dtype=np.float64)
    return frozen(array) if array.any() or not np.isfinite(array).all() else np.broadcast_to(np.float64(0), array.shape)


def _dot(row: Array, values: Array) -> Fraction:
    at = np.flatnonzero(row)
    return sum((Fraction(float(row[k])) * Fraction(float(values[k])) for k in at), Fraction(0))
