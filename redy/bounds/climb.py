"""How large |row| certainly gets: the largest values met at points, and local search from there. Nothing is proved."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numba
import numpy as np
from numpy.typing import NDArray

from redy.bounds.branch import Rows
from redy.bounds.descent import DEPTH
from redy.model import Array

_STEPS = 16
"""Halvings of the step of the local search."""
_POLLS = 4 * _STEPS


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


def deepest(tree: NDArray[np.int16], lower: Array, upper: Array) -> Array:
    """The middle (n,) of the smallest sub-box of a search's tree (see `redy.bounds.branch.Found`).

    A depth-first search that ends with sub-boxes too small to cut is near a point that refutes what was asked, or comes
    within rounding of it: on a kink, which neither middles nor corners hit.
    """
    return np.asarray(_deepest(tree, lower, upper))


@numba.njit(cache=True)
def _deepest(tree, lower, upper):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 - numba infers types
    n = len(lower)
    lo, hi = np.zeros((DEPTH + 3, n)), np.zeros((DEPTH + 3, n))
    depth = np.zeros(DEPTH + 3, np.int64)
    lo[0], hi[0] = lower, upper
    best, middle, top = -1, lower.copy(), 1
    for axis in tree:
        if top == 0:
            break
        s = top - 1
        if depth[s] > best:
            best = depth[s]
            for i in range(n):
                middle[i] = lo[s, i] + (hi[s, i] - lo[s, i]) / 2
        if axis < 0:
            top -= 1
            continue
        cut = lo[s, axis] + (hi[s, axis] - lo[s, axis]) / 2
        lo[s + 1], hi[s + 1] = lo[s], hi[s]
        depth[s] += 1
        depth[s + 1] = depth[s]
        lo[s, axis], hi[s + 1, axis] = cut, cut
        top += 1
    return middle


def climb(value: Callable[[Array], Array], lower: Array, upper: Array, start: Array) -> Array:
    """A point (n,) of the box where `value` ((m, n) -> (m,)) is at least as large as at `start`.

    Pattern search (Hooke and Jeeves, J. ACM 8, 1961): one step along every direction both ways, the best is kept, and
    the step halves when none is better. It needs no derivative, so kinks do not trouble it; on a ridge no step along
    an input goes up, so that random directions are polled as well (Audet and Dennis, SIAM J. Optim. 17, 2006). They
    are the same in every run.
    """
    rng = np.random.default_rng(0)
    point, best = start.copy(), float(value(start[None])[0])
    step = 0.5
    free = np.flatnonzero(upper > lower)
    width, last = (upper - lower)[free], np.zeros(free.size)
    for _ in range(_POLLS if free.size else 0):
        random = rng.normal(size=(2 * free.size, free.size))
        random /= np.abs(random).max(axis=1, keepdims=True)
        directions = np.concatenate([np.eye(free.size), random])
        moves = np.repeat(point[None], 2 * len(directions) + 1, axis=0)
        moves[:, free] += np.concatenate([step * width * directions, -step * width * directions, last[None]])
        moves = np.clip(moves, lower, upper)
        values = value(moves)
        k = int(values.argmax())
        if values[k] > best:
            # What went up is tried again, twice as far.
            last = 2 * (moves[k] - point)[free]
            point, best = moves[k], float(values[k])
        elif step < 2.0**-_STEPS:
            break
        else:
            last, step = np.zeros(free.size), step / 2
    return point
