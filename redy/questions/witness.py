"""Inputs that show a property violated: which of them count.

A point counts if it is an input that the file can be given: rounded to the network's float type it lies in the box, the
file's own evaluation (onnxruntime) puts it into the unsafe set, compared in rational arithmetic, and the float64
evaluation with its rounding bounded does not show the contrary for real arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from redy.model import Array, Box, Conjunction, Network
from redy.questions.seen import UNIT, rounding

Run = Callable[[Array], Array]
"""All outputs of the file, flattened, at points (m, *input shape), as (m, outputs)."""


@dataclass(frozen=True, slots=True, eq=False)
class Witnesses:
    """Decides which points count.

    Attributes:
        network: the network.
        run: the file's evaluation; without one a point counts only if float64 evaluation is sure.
    """

    network: Network
    run: Run | None

    def confirmed(self, conjunction: Conjunction, points: Array) -> Array | None:
        """The first of the points (m, *input shape) that counts, rounded to the input's type, else None."""
        rounded: list[Array] = list(into(conjunction.box, points, self.network.input.dtype))
        for point in rounded:
            value, doubt = self._values(conjunction, point)
            if (value > doubt).any():
                continue
            if self.run is None:
                sure = np.where(conjunction.strict, value < -doubt, value <= -doubt)
                if sure.all() and conjunction.box.contains(point[None])[0]:
                    return point
            elif conjunction.met_by(point, self.run(point[None])[0]):
                return point
        return None

    def _values(self, conjunction: Conjunction, point: Array) -> tuple[Array, Array]:
        """(k,) every row of the constraints at one point in float64, and how far it may be from real arithmetic."""
        trace = self.network.trace(point[None])
        error = rounding(self.network, {name: np.abs(value[0]) for name, value in trace.items()})
        flat = [trace[port.name].reshape(-1) for port in self.network.outputs]
        y = np.concatenate(flat)
        off = [
            error[port.name].reshape(-1) if port.name in error else np.full(value.size, np.inf)
            for port, value in zip(self.network.outputs, flat, strict=True)
        ]
        size = (
            np.abs(conjunction.inputs) @ np.abs(point.ravel())
            + np.abs(conjunction.outputs) @ np.abs(y)
            + np.abs(conjunction.constants)
        )
        used = np.where(conjunction.outputs != 0, np.concatenate(off), 0.0)
        doubt = (np.abs(conjunction.outputs) * used).sum(axis=1, where=conjunction.outputs != 0)
        return conjunction.values(point[None], y[None])[0], doubt + 4 * (point.size + y.size + 4) * UNIT * size


def into(box: Box, points: Array, dtype: str) -> Array:
    """Points (m, *shape) rounded to a float type towards the inside of the box, as float64.

    Where the box holds no number of that type, the result lies outside.
    """
    if dtype not in ("float16", "float32"):
        return box.clip(points)
    kind = np.dtype(dtype).type
    rounded = box.clip(points).astype(kind)
    for _ in range(2):
        wide = rounded.astype(np.float64)
        rounded = np.where(wide > box.upper, np.nextafter(rounded, kind(-np.inf)), rounded)
        rounded = np.where(wide < box.lower, np.nextafter(rounded, kind(np.inf)), rounded)
    return np.asarray(rounded, dtype=np.float64)
