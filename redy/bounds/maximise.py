"""How large can rows of a condensed form become in absolute value? Best-first branch and bound on the input box.

The sub-boxes whose bound is farthest above the largest value found are cut first, a batch at a time, until for every
row the bound is within `ratio` of the largest value found, or the budget ends. A bound is sound whenever the search
stops.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from redy.bounds.branch import Rows
from redy.model import Array

RATIO = 1.05
_BATCH = 64
_STEPS = 14
"""Halvings of the step of the local search."""


@dataclass(frozen=True, slots=True, eq=False)
class Largest:
    """How large |row| gets on the box, per row.

    Attributes:
        bound: (r,) sound upper bounds.
        found: (r,) the largest values met.
        points: (r, n) where they were met.
        boxes: sub-boxes bounded.
        complete: True if every bound is within the ratio (or below `enough`).
    """

    bound: Array
    found: Array
    points: Array
    boxes: int
    complete: bool


def largest(
    rows: Rows,
    points: Array,
    *,
    ratio: float = RATIO,
    enough: float = 0.0,
    budget: int = 20_000,
    deadline: float | None = None,
) -> Largest:
    """Bound |row| for the rows behind the variables' rows.

    Args:
        rows: a condensed form on its box with the rows in question.
        points: (m, n) points of the box to start from, m >= 1.
        ratio: how near bound and largest value found must come.
        enough: a bound at most this large needs no tightening.
        budget: sub-boxes, at most (deterministic).
        deadline: `time.monotonic()` at which the search ends.
    """
    search = _Best(rows, ratio, enough)
    search.see(points)
    search.climb()
    root = rows.lower.copy(), rows.upper.copy(), rows.zlo.copy(), rows.zhi.copy()
    search.bound(*root, np.full((1, search.count), np.inf))
    while search.heap and search.boxes < budget and (deadline is None or time.monotonic() < deadline):
        search.cut(min(_BATCH, max(1, (budget - search.boxes) // 2)))
    return search.result()


class _Best:
    """The open sub-boxes in a heap, the largest excess on top."""

    def __init__(self, rows: Rows, ratio: float, enough: float) -> None:
        self.rows, self.ratio = rows, ratio
        self.count, self.boxes = rows.count - rows.variables, 0
        # What rounding alone may be cannot be tightened by cutting.
        self.floor = np.maximum(enough, rows.doubt[rows.variables :])
        self.found, self.points = np.zeros(self.count), np.repeat(rows.lower, self.count, axis=0)
        self.closed = np.zeros(self.count)
        self.heap: list[tuple[float, int, Array, tuple[Array, ...], int]] = []
        self.number = itertools.count()

    @property
    def target(self) -> Array:
        """(r,) a bound at most this large needs no tightening."""
        return np.maximum(self.ratio * self.found, self.floor)

    def see(self, points: Array) -> None:
        """Evaluate points (m, n)."""
        values = np.abs(self.rows.evaluate(points)[:, self.rows.variables :])
        best = values.argmax(axis=0)
        top = values[best, np.arange(self.count)]
        better = top > self.found
        self.found, self.points = (
            np.where(better, top, self.found),
            np.where(better[:, None], points[best], self.points),
        )

    def climb(self) -> None:
        """A local search from the best point of every row."""
        lower, upper = self.rows.lower[0], self.rows.upper[0]
        for k in range(self.count):
            self.see(climb(partial(self._size, k), lower, upper, self.points[k])[None])

    def _size(self, row: int, points: Array) -> Array:
        return np.asarray(np.abs(self.rows.evaluate(points)[:, self.rows.variables + row]))

    def bound(self, lo: Array, hi: Array, zlo: Array, zhi: Array, inherited: Array) -> None:
        """Bound sub-boxes; open ones go on the heap, the others count for the result."""
        want = np.zeros((len(lo), self.rows.count), dtype=np.int8)
        want[:, self.rows.variables :] = 3
        low, high, smear, vertex = self.rows.bound(lo, hi, zlo, zhi, want)
        self.boxes += len(lo)
        bounds = np.minimum(np.maximum(np.abs(low), np.abs(high)), inherited)
        middle = lo + (hi - lo) / 2
        self.see(np.concatenate([middle, vertex]))
        splittable = (lo < middle) & (middle < hi)
        smear = np.where(splittable, np.maximum(smear, 0), -1.0)
        for k in range(len(lo)):
            axis = int(smear[k].argmax())
            excess = self.excess(bounds[k])
            if excess <= 0 or smear[k, axis] < 0:
                self.closed = np.maximum(self.closed, bounds[k])
            else:
                heapq.heappush(self.heap, (-excess, next(self.number), bounds[k], (lo[k], hi[k], zlo[k], zhi[k]), axis))

    def excess(self, bounds: Array) -> float:
        """By how much the bounds exceed what is wanted, relative to it, for the worst row."""
        target = self.target
        over = bounds - target
        return float((over / np.maximum(target, 1e-300)).max(initial=-1.0))

    def cut(self, batch: int) -> None:
        """Bisect the worst sub-boxes."""
        taken: list[tuple[tuple[Array, ...], int, Array]] = []
        while self.heap and len(taken) < batch:
            _, _, bounds, cell, axis = heapq.heappop(self.heap)
            if self.excess(bounds) <= 0:
                self.closed = np.maximum(self.closed, bounds)
                continue
            taken.append((cell, axis, bounds))
        if not taken:
            return
        lo, hi, zlo, zhi = (np.repeat(np.stack([cell[k] for cell, _, _ in taken]), 2, axis=0) for k in range(4))
        for k, (cell, axis, _) in enumerate(taken):
            middle = cell[0][axis] + (cell[1][axis] - cell[0][axis]) / 2
            hi[2 * k, axis] = lo[2 * k + 1, axis] = middle
        self.bound(lo, hi, zlo, zhi, np.repeat(np.stack([bounds for _, _, bounds in taken]), 2, axis=0))

    def result(self) -> Largest:
        """The bounds over closed and open sub-boxes."""
        bound = self.closed
        for _, _, bounds, _, _ in self.heap:
            bound = np.maximum(bound, bounds)
        return Largest(bound, self.found, self.points, self.boxes, bool((bound <= self.target).all()))


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
