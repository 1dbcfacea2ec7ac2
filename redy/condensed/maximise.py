"""How large can rows of a condensed form become in absolute value? Branch and bound on the input box.

Best first to begin with: the sub-boxes whose bound is farthest above the largest value found are cut first, a batch at
a time. That finds the largest values soon, and is enough for most questions. Where it is not, thresholds near the
largest value found are proved depth first (`threshold`), which costs a tenth per sub-box. Both end when for every row
the bound is within `ratio` of the largest value found, or the budget ends. A bound is sound whenever the search stops.
"""

from __future__ import annotations

import heapq
import itertools
import time
from dataclasses import dataclass

import numpy as np

from redy.bounds.rounding import UNIT
from redy.condensed.climb import Met
from redy.condensed.search import Rows
from redy.condensed.threshold import Thresholds
from redy.model import Array

RATIO = 1.05
BOXES = 2_000
"""Sub-boxes that are cut best first."""
WORK = 3_000_000_000
"""Work of the engine on thresholds (see `redy.condensed.kernels.descent`), some ten seconds."""
_BATCH = 64
_STARTS = 3
"""Points from which local search starts, per row."""


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
    enough: float | Array = 0.0,
    known: Array | None = None,
    boxes: int = BOXES,
    work: int = WORK,
    deadline: float | None = None,
) -> Largest:
    """Bound |row| for the rows behind the variables' rows.

    Args:
        rows: a condensed form on its box with the rows in question.
        points: (m, n) points of the box to start from, m >= 1.
        ratio: how near bound and largest value met must come.
        enough: a bound at most this large needs no tightening; one number or one per row.
        known: (r,) thresholds that are likely to hold; they are tried before others.
        boxes: sub-boxes cut best first, at most (deterministic).
        work: of the engine on thresholds, at most (deterministic).
        deadline: `time.monotonic()` at which the search ends.
    """
    met = Met(rows)
    met.climb(points, _STARTS)
    # What rounding alone may be cannot be tightened by cutting.
    extra = slice(rows.variables, None)
    floor = np.maximum(enough, 4 * (rows.e[extra] + 8 * (rows.count + 8) * UNIT * rows.base[extra]))
    best = _Best(rows, met, floor, ratio)
    while best.heap and best.boxes < boxes and (deadline is None or time.monotonic() < deadline):
        best.cut(min(_BATCH, max(1, (boxes - best.boxes) // 2)))
    last = Thresholds(rows, met, best.result(), floor, ratio)
    last.tighten(work, deadline, known)
    bound = np.maximum(last.bound.max(axis=0), 0.0)
    complete = bool((bound <= np.maximum(ratio * met.values, floor)).all())
    return Largest(bound, met.values, met.points, best.boxes + last.boxes, complete)


class _Best:
    """The open sub-boxes in a heap, the largest excess on top."""

    def __init__(self, rows: Rows, met: Met, floor: Array, ratio: float) -> None:
        self.rows, self.met, self.floor, self.ratio, self.boxes = rows, met, floor, ratio, 0
        self.closed = np.zeros(met.count)
        self.heap: list[tuple[float, int, Array, tuple[Array, ...], int]] = []
        self.number = itertools.count()
        root = rows.lower.copy(), rows.upper.copy(), rows.zlo.copy(), rows.zhi.copy()
        self.bound(*root, np.full((1, met.count), np.inf))

    def bound(self, lo: Array, hi: Array, zlo: Array, zhi: Array, inherited: Array) -> None:
        """Bound sub-boxes; open ones go on the heap, the others count for the result."""
        want = np.zeros((len(lo), self.rows.count), dtype=np.int8)
        want[:, self.rows.variables :] = 3
        low, high, smear, vertex = self.rows.bound(lo, hi, zlo, zhi, want)
        self.boxes += len(lo)
        bounds = np.minimum(np.maximum(np.abs(low), np.abs(high)), inherited)
        middle = lo + (hi - lo) / 2
        self.met.see(np.concatenate([middle, vertex]))
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
        target = np.maximum(self.ratio * self.met.values, self.floor)
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

    def result(self) -> Array:
        """(r,) the bounds over closed and open sub-boxes."""
        bound = self.closed
        for _, _, bounds, _, _ in self.heap:
            bound = np.maximum(bound, bounds)
        return bound
