"""Bounds of |row| on a box, sharper than bounding alone gives them: thresholds that one compiled search proves.

The largest value met, times a little, is a threshold t. One search (`redy.bounds.branch`) asks for all rows whether
|row| <= t everywhere: where it proves that, t is a bound within the wanted ratio; where a point refutes it, local
search climbs on from there and the threshold grows; where its share of the budget ends first, t is bisected on a
logarithmic scale towards the bound that is known.
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from redy.bounds.branch import LOWER, UPPER, Clause, Rows, Search
from redy.bounds.climb import Met
from redy.bounds.rounding import GROW, UNIT
from redy.model import Array

AIM = 1.01
"""The ratio that is tried first, so that a weaker attack than the one here still comes near to the ratio wanted."""
_SHARES = 6
"""Searches that may end without an answer."""
_NEAR = 1.1
"""A threshold this near below a known bound is not worth a search of its own."""
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
            budget: work, at most (deterministic; see `redy.bounds.descent`).
            deadline: `time.monotonic()` at which the search ends.
            known: (r,) thresholds that are likely to hold and are tried before all others.
        """
        share = max(1, budget // _SHARES)
        if known is not None:
            self._ask(np.where(self.bound > known, known, np.inf), share, deadline)
        for _ in range(_ATTEMPTS):
            late = deadline is not None and time.monotonic() > deadline
            if late or self.work >= budget or not self._ask(self._next(), min(share, budget - self.work), deadline):
                break

    def _next(self) -> Array:
        """(2, r) what to ask next, infinite where a row needs no more."""
        aims = [np.maximum(factor * self.met.values, self.floor) for factor in (min(AIM, self.ratio), self.ratio)]
        between = np.sqrt(np.maximum(self.failed, self.floor) * self.bound)
        between = np.where(self.bound > _NEAR * self.failed, between, np.inf)
        asked = np.where(self.failed < aims[0], aims[0], np.where(self.failed < aims[1], aims[1], between))
        return np.where(self.bound > np.maximum(aims[0], asked), asked, np.inf)

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
        self.failed[sides[found.open], which[found.open]] = limits[found.open]
        before = self.met.values.copy()
        if found.refuted:
            self.met.climb(np.stack(list(found.refuted.values())))
        for c in found.refuted:
            # A value within rounding of the threshold would be asked about for ever.
            if self.met.values[which[c]] <= before[which[c]]:
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
