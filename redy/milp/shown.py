"""What points of the box show: the smallest and largest pre-activation of every element, and where."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from redy.model import Array, Network

Extremes = tuple[Array, Array, NDArray[np.int64], NDArray[np.int64]]


@dataclass
class Shown:
    """Grows with every point: `see` more of them, then ask for `piece` or a `witness`."""

    network: Network
    points: list[Array] = field(default_factory=list)
    extremes: dict[str, Extremes] = field(default_factory=dict)

    def see(self, points: Array) -> None:
        """Evaluate inputs (n, *input shape) in float64."""
        first = len(self.points)
        self.points.extend(points)
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            values = self.network.trace(points)
        for node in self.network.activations:
            z = values[node.source]
            low, high = z.min(axis=0), z.max(axis=0)
            at_low, at_high = first + z.argmin(axis=0), first + z.argmax(axis=0)
            if node.name in self.extremes:
                old_low, old_high, old_at_low, old_at_high = self.extremes[node.name]
                at_low = np.where(low < old_low, at_low, old_at_low)
                at_high = np.where(high > old_high, at_high, old_at_high)
                low, high = np.minimum(low, old_low), np.maximum(high, old_high)
            self.extremes[node.name] = (low, high, at_low, at_high)

    def pieces(self, name: str) -> NDArray[np.int64]:
        """For every element of an activation the piece that all points share, -1 where they show several."""
        low, high, _, _ = self.extremes[name]
        return next(node.function.stuck(low, high) for node in self.network.activations if node.name == name)

    def witness(self, name: str, place: int) -> Array:
        """The point at which an element's pre-activation is largest."""
        return self.points[int(self.extremes[name][3].flat[place])]
