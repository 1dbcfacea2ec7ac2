"""Bounds of |row| on a box, sharper than bounding alone gives them: thresholds that one compiled search proves.

The largest value met, times a little, is the goal. One search (`redy.condensed.search`) asks for all rows whether
|row| <= t everywhere, with t half way (on a logarithmic scale) from the bound that is known down to the goal: each such
step costs several times what the one before did, so that little is lost when the budget ends. Where a search proves t,
it is the next bound; where a point refutes it or comes near to that, local search climbs on from there and the goal
grows; where sub-boxes stay open, the next t lies above it. The row with the largest values comes first: its bound is
that of the whole.
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from redy.bounds.rounding import GROW, UNIT
from redy.condensed.climb import Met
from redy.condensed.search import LOWER, UPPER, Clause, Rows, Search
from redy.model import Array

AIM = 1.01
"""The ratio that is tried first, so that a weaker attack than the one here still comes near to the ratio wanted."""
_NEAR = 1.03
"""From a bound this near above the goal the next step goes straight to it."""
_ATTEMPTS = 100


class Thresholds:
    """Bounds from above and values from below; index 0 of `bound` and `failed` is for the row, 1 for its negative.

    Attributes:
        bound: (2, r) sound upper bounds of row and -row on the box.
        failed: (2, r) the largest threshold for which no search found an answer.
        boxes, work: sub-boxes bounded and units of work done.
    """

    def __init__(self, rows: Rows, met: Met, bound: Array, floor: Array, ratio: float) -> None:
        self.rows, self.met, self.floor, self.ratio = rows, met, floor, ratio
        self.bound, self.failed = np.stack([bound, bound]), np.zeros((2, met.count))
        self.boxes = self.work = 0

    def tighten(self, budget: int, deadline: float | None, known: Array | None = None) -> None:
        """Ask until every bound is within the ratio, or the budget of work or the time is spent.

        Args:
            budget: work, at most (deterministic; see `redy.condensed.kernels.descent`).
            deadline: `time.monotonic()` at which the search ends.
            known: (r,) thresholds that are likely to hold and are tried before all others.
        """
        if known is not None:
            self._ask(np.where(self.bound > known, known, np.inf), budget, deadline)
        for common in (True, False):
            for _ in range(_ATTEMPTS):
                late = deadline is not None and time.monotonic() > deadline
                if late or self.work >= budget or not self._ask(self._next(common), budget - self.work, deadline):
                    break

    def _next(self, common: bool) -> Array:
        """(2, r) what to ask next, inf where a row needs no more; `common`: the largest row's goal is all rows'."""
        values = np.full(self.met.count, self.met.values.max(initial=0.0)) if common else self.met.values
        aim, goal = (np.maximum(factor * values, self.floor) for factor in (min(AIM, self.ratio), self.ratio))
        # Where a search for `failed` ended with open sub-boxes, what is left is the gap above it.
        low = np.where(self.failed < aim, aim, np.where(self.failed < goal, goal, self.failed))
        step = np.sqrt(low * self.bound)
        asked = np.where((self.bound <= _NEAR * low) & (low > self.failed), low, step)
        done = (self.bound <= aim) | ((self.failed >= aim) & (self.bound <= np.maximum(goal, _NEAR**2 * self.failed)))
        return np.where(done, np.inf, asked)

    def _ask(self, thresholds: Array, budget: int, deadline: float | None) -> bool:
        """One search for all rows whose threshold (2, r) is finite; False if there is none."""
        sides, which = np.nonzero(np.isfinite(thresholds))
        if not which.size:
            return False
        limits = thresholds[sides, which]
        laid, clauses = _beyond(self.rows, sides, which, limits)
        found = Search(laid, clauses, cap=budget, budget=budget, deadline=deadline).run()
        self.boxes, self.work = self.boxes + found.boxes, self.work + found.work
        self.bound[sides[found.proved], which[found.proved]] = limits[found.proved]
        before = self.met.values.copy()
        if near := [*found.refuted.values(), *found.open.values()]:
            self.met.climb(np.unique(np.stack(near), axis=0))
        for c in (*found.refuted, *found.open):
            # A value within rounding of the threshold would be asked about for ever.
            if self.met.values[which[c]] <= max(before[which[c]], limits[c]):
                self.failed[sides[c], which[c]] = limits[c]
        return True


def _beyond(rows: Rows, sides: NDArray[np.int64], which: NDArray[np.int64], limits: Array) -> tuple[Rows, list[Clause]]:
    """Rows and clauses for "row <= limit" (side 0) and "row >= -limit" (side 1) on the whole box."""
    first = rows.variables
    taken = np.concatenate([np.arange(first), first + which])
    b, e = rows.b[taken], rows.e[taken]
    e[first:] = (e[first:] + 2 * UNIT * (np.abs(b[first:]) + limits)) * GROW
    b[first:] += np.where(sides == 0, -limits, limits)
    laid = Rows((rows.C[taken], b, rows.M[taken], e), rows.partner, (rows.lower, rows.upper, rows.zlo, rows.zhi))
    return laid, [Clause(((first + k, UPPER if side == 0 else LOWER),)) for k, side in enumerate(sides)]
