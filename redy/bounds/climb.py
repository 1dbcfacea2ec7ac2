"""How large |row| certainly gets: the largest values met at points, and local search from there. Nothing is proved."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from redy.bounds.branch import Rows
from redy.model import Array

_STEPS = 14
"""Halvings of the step of the local search."""


class Met:
    """The largest |row| met at points of the box, for the rows behind the variables' rows.

    Attributes:
        count: r, how many rows.
        values: (r,) the largest values met; points: (r, n) where.
    """

    def __init__(self, rows: Rows) -> None:
        self.rows, self.count = rows, rows.count - rows.variables
        self.values, self.points = np.zeros(self.count), np.repeat(rows.lower, self.count, axis=0)

    def see(self, points: Array) -> Array:
        """Evaluate points (m, n); returns |row| there as (m, r)."""
        values = np.abs(self.rows.evaluate(points)[:, self.rows.variables :])
        best = values.argmax(axis=0)
        top = values[best, np.arange(self.count)]
        better = top > self.values
        self.values = np.where(better, top, self.values)
        self.points = np.where(better[:, None], points[best], self.points)
        return values

    def climb(self, points: Array, starts: int = 1) -> None:
        """Local search for every row from the best `starts` of the points (m, n)."""
        values = self.see(points)
        lower, upper = self.rows.lower[0], self.rows.upper[0]
        for k in range(self.count):
            for start in np.argsort(-values[:, k], kind="stable")[:starts]:
                self.see(climb(partial(self._size, k), lower, upper, points[start])[None])

    def _size(self, row: int, points: Array) -> Array:
        return np.asarray(np.abs(self.rows.evaluate(points)[:, self.rows.variables + row]))


def climb(value: Callable[[Array], Array], lower: Array, upper: Array, start: Array) -> Array:
    """A point (n,) of the box where `value` ((m, n) -> (m,)) is at least as large as at `start`.

    Pattern search (Hooke and Jeeves, J. ACM 8, 1961): one step along every input in both directions, the best is kept,
    and the step halves when none is better. It needs no derivative, so kinks do not trouble it.
    """
    point, best = start.copy(), float(value(start[None])[0])
    step = 0.5
    free = np.flatnonzero(upper > lower)
    for _ in range(4 * _STEPS):
        moves = np.repeat(point[None], 2 * free.size, axis=0)
        shift = step * (upper - lower)[free]
        rows = np.arange(free.size)
        moves[rows, free] += shift
        moves[free.size + rows, free] -= shift
        moves = np.clip(moves, lower, upper)
        values = value(moves)
        k = int(values.argmax()) if len(values) else -1
        if k >= 0 and values[k] > best:
            point, best = moves[k], float(values[k])
        else:
            step /= 2
            if step < 2.0**-_STEPS:
                break
    return point
