"""How large |row| certainly gets: the largest values met at points, and local search from there. Nothing is proved."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from redy.condensed.search import Rows
from redy.model import Array

Value = Callable[[Array], Array]

_STEPS = 14
"""Halvings of the step of the pattern search."""
_RADII = 2.0**-7, 2.0**-25
"""The first and the last radius in which gradients are sampled, as shares of the box."""
_POLLS = 60
MANY = 128
"""Inputs up to which single inputs are moved."""
_DIRECTIONS = 32
"""Random directions tried at once."""
_TURNS = 100


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


def climb(value: Value, lower: Array, upper: Array, start: Array) -> Array:
    """A point (n,) of the box where `value` ((m, n) -> (m,)) is at least as large as at `start`.

    Pattern search (Hooke and Jeeves, J. ACM 8, 1961) first: one step along every input in both directions, the best is
    kept, and the step halves when none is better. It stops on ridges, where no step along an input goes up; gradients
    sampled around the point show the way along them (Burke, Lewis and Overton, SIAM J. Optim. 15, 2005). Random
    choices are the same in every run. With more than `MANY` inputs, whose gradients by differences cost memory in the
    cube of their number, steps in random directions take the place of both.
    """
    free = np.flatnonzero(upper > lower)
    if not free.size:
        return start.copy()
    width = np.where(upper > lower, upper - lower, 1.0)

    def scaled(points: Array) -> Array:
        return np.asarray(value(np.clip(lower + points * width, lower, upper)))

    if free.size > MANY:
        point = _random_moves(scaled, free, (start - lower) / width)
    else:
        point = _along_ridges(scaled, free, _pattern(scaled, free, (start - lower) / width))
    point = np.clip(lower + point * width, lower, upper)
    return point if value(point[None])[0] >= value(start[None])[0] else start.copy()


def _random_moves(value: Value, free: NDArray[np.int64], point: Array) -> Array:
    """Steps to random corners of smaller and smaller cubes around the point, the best of a few at a time."""
    rng = np.random.default_rng(0)
    best, step = float(value(point[None])[0]), 0.5
    while step > 2.0**-_STEPS:
        moves = np.repeat(point[None], _DIRECTIONS, axis=0)
        moves[:, free] = np.clip(moves[:, free] + step * rng.choice([-1.0, 1.0], moves[:, free].shape), 0.0, 1.0)
        values = value(moves)
        k = int(values.argmax())
        if values[k] > best:
            point, best = moves[k], float(values[k])
        else:
            step /= 2
    return point


def _pattern(value: Value, free: NDArray[np.int64], point: Array) -> Array:
    """Pattern search in the unit cube."""
    best, step = float(value(point[None])[0]), 0.5
    for _ in range(4 * _STEPS):
        moves = np.repeat(point[None], 2 * free.size, axis=0)
        rows = np.arange(free.size)
        moves[rows, free] += step
        moves[free.size + rows, free] -= step
        moves = np.clip(moves, 0.0, 1.0)
        values = value(moves)
        k = int(values.argmax())
        if values[k] > best:
            point, best = moves[k], float(values[k])
        elif step < 2.0**-_STEPS:
            break
        else:
            step /= 2
    return point


def _along_ridges(value: Value, free: NDArray[np.int64], point: Array) -> Array:
    """Gradient sampling in the unit cube: the shortest convex combination of gradients nearby goes up for all."""
    rng = np.random.default_rng(0)
    best, radius = float(value(point[None])[0]), _RADII[0]
    for _ in range(_POLLS):
        near = np.repeat(point[None], 2 * free.size, axis=0)
        near[:, free] = np.clip(near[:, free] + radius * rng.uniform(-1, 1, near[:, free].shape), 0.0, 1.0)
        gradients = _differences(value, free, near, 1e-3 * radius)
        # An input at its end moves inwards only.
        for _ in range(2):
            way = _shortest(gradients)
            held = ((point[free] <= 0) & (way < 0)) | ((point[free] >= 1) & (way > 0))
            gradients[:, held] = 0.0
        length = float(np.abs(way).max())
        steps = radius * 4.0 ** np.arange(-2, 6)[:, None] * way / max(length, 1e-300)
        moves = np.repeat(point[None], len(steps), axis=0)
        moves[:, free] = np.clip(moves[:, free] + steps, 0.0, 1.0)
        values = value(moves)
        k = int(values.argmax())
        if length > 0 and values[k] > best:
            point, best = moves[k], float(values[k])
        elif radius <= _RADII[1]:
            break
        else:
            radius /= 8
    return point


def _differences(value: Value, free: NDArray[np.int64], points: Array, step: float) -> Array:
    """(m, free) gradients by differences."""
    moved = np.repeat(points[:, None], free.size, axis=1)
    inwards = np.where(points[:, free] > 0.5, -step, step)
    moved[:, np.arange(free.size), free] += inwards
    values = value(np.concatenate([points, moved.reshape(-1, points.shape[1])]))
    rise = values[len(points) :].reshape(len(points), -1) - values[: len(points), None]
    return np.where(np.isfinite(rise), rise, 0.0) / inwards


def _shortest(gradients: Array) -> Array:
    """The shortest vector in the convex hull of the rows (m, n), nearly (Gilbert, SIAM J. Control 4, 1966)."""
    way = gradients.mean(axis=0)
    for _ in range(_TURNS):
        towards = gradients[int((gradients @ way).argmin())] - way
        length = float(towards @ towards)
        share = 0.0 if length == 0 else min(max(-float(way @ towards) / length, 0.0), 1.0)
        if share == 0:
            break
        way = way + share * towards
    return np.asarray(way)
