"""What a bounding method found: a sound interval for every pre-activation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from redy.errors import CheckFailed
from redy.model import Array, Box, Network

Range = tuple[Array, Array]
"""Lower and upper bounds of one value, both of the value's shape (no batch axis)."""


@dataclass(frozen=True, slots=True, eq=False)
class Bounds:
    """An interval for the pre-activation of every `Activate` node, sound in real arithmetic for every input of `box`.

    Attributes:
        box: the inputs for which the intervals hold.
        intervals: `Activate` name -> (lower, upper), each of the node's shape; an end may be infinite.
        method: what found them ("interval", "linear", "milp", ...).
        trusted: what was believed and not re-derived on the way; empty where redy's own arithmetic shows everything.

    Raises:
        CheckFailed: a lower bound is above its upper bound (two bounds that are both sound cannot contradict).
    """

    box: Box
    intervals: Mapping[str, Range]
    method: str
    trusted: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        kept: dict[str, Range] = {}
        for name, (lower, upper) in self.intervals.items():
            if not (lower <= upper).all():
                raise CheckFailed(
                    f"{name}: a lower bound is above its upper bound ({self.method}); this is a bug in redy"
                )
            lower.flags.writeable = upper.flags.writeable = False
            kept[name] = (lower, upper)
        object.__setattr__(self, "intervals", kept)

    def tighten(self, other: Bounds) -> Bounds:
        """The intersection with bounds of the same network on a box that holds this one; keeps this method's name.

        Raises:
            ValueError: `other` does not hold on the whole of this box.
        """
        if (other.box.lower > self.box.lower).any() or (other.box.upper < self.box.upper).any():
            raise ValueError("bounds of another box can only tighten those of a box inside it")
        intervals = dict(self.intervals)
        for name, (lower, upper) in other.intervals.items():
            if name in intervals:
                mine = intervals[name]
                intervals[name] = (np.maximum(lower, mine[0]), np.minimum(upper, mine[1]))
        trusted = tuple(dict.fromkeys((*self.trusted, *other.trusted)))
        return Bounds(self.box, intervals, self.method, trusted)

    def pieces(self, network: Network) -> dict[str, NDArray[np.int64]]:
        """For every `Activate` node the piece each element is stuck in, -1 where that is open; the node's shape."""
        return {
            node.name: node.function.stuck(*self.intervals[node.name])
            for node in network.activations
            if node.name in self.intervals
        }
