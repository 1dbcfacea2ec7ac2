"""What points of the box show: the smallest and largest pre-activation of every element, and where."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from redy.model import Array, Network

CHUNK = 1 << 22
"""Numbers in all values of the points that are evaluated at once (32 MiB)."""

Extremes = tuple[Array, Array, NDArray[np.int64], NDArray[np.int64]]


@dataclass
class Shown:
    """Grows with every point: `see` more of them, then ask for `piece` or a `witness`."""

    network: Network
    points: list[Array] = field(default_factory=list)
    extremes: dict[str, Extremes] = field(default_factory=dict)

    def see(self, points: Array) -> NDArray[np.int64]:
        """Evaluate inputs (n, *input shape) in float64; returns which moved an extreme (only those are kept)."""
        step = max(1, CHUNK // sum(math.prod(shape) for shape in self.network.shapes.values()))
        starts = range(0, len(points), step)
        kept = [begin + self._see(points[begin : begin + step]) for begin in starts]
        return np.concatenate([np.empty(0, np.int64), *kept])

    def _see(self, points: Array) -> NDArray[np.int64]:
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            values = self.network.trace(points)
        found = {node.name: _extremes(values[node.source]) for node in self.network.activations}
        moved = {name: self._moved(name, low, high) for name, (low, high, _, _) in found.items()}
        used = [found[name][2 + side][where] for name in found for side, where in enumerate(moved[name])]
        kept = np.unique(np.concatenate([np.empty(0, np.int64), *used]))
        place = np.zeros(len(points), dtype=np.int64)
        place[kept] = len(self.points) + np.arange(kept.size)
        self.points.extend(points[kept])
        for name, new in found.items():
            old = self.extremes.get(name, new)
            lower, higher = moved[name]
            self.extremes[name] = (
                np.where(lower, new[0], old[0]),
                np.where(higher, new[1], old[1]),
                np.where(lower, place[new[2]], old[2]),
                np.where(higher, place[new[3]], old[3]),
            )
        return kept

    def _moved(self, name: str, low: Array, high: Array) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        if name not in self.extremes:
            return np.ones(low.shape, dtype=bool), np.ones(low.shape, dtype=bool)
        return low < self.extremes[name][0], high > self.extremes[name][1]

    def pieces(self, name: str) -> NDArray[np.int64]:
        """For every element of an activation the piece that all points share, -1 where they show several."""
        low, high, _, _ = self.extremes[name]
        return next(node.function.stuck(low, high) for node in self.network.activations if node.name == name)

    def witness(self, name: str, place: int) -> Array:
        """The point at which an element's pre-activation is largest."""
        return self.points[int(self.extremes[name][3].flat[place])]


def _extremes(z: Array) -> Extremes:
    return z.min(axis=0), z.max(axis=0), z.argmin(axis=0), z.argmax(axis=0)
