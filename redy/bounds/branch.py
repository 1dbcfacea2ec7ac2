"""Branching on the input box over a condensed form: the one search behind every question of the engine.

A question is a `Clause`: at every point of the box at least one of its rows has the stated sign. "Unit i is active",
"this linear form of the outputs is non-negative" and "the winner is kept" are clauses. The search bisects the box
level by level; a clause is closed in a sub-box when one of its rows is bounded there on the right side, refuted when a
concrete point violates all its rows, and *set aside* when it is open in more than `cap` sub-boxes of one level: such a
clause returns later, in a smaller condensed form (iterative deepening, see `phases`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from redy.bounds.condensed import Condensed, Form
from redy.bounds.kernel import bound_boxes, evaluate_rows
from redy.bounds.rounding import gamma
from redy.model import Array

LOWER, UPPER = 1, 2
_DEPTH = 120
_CHUNK = 4096


@dataclass(frozen=True, slots=True)
class Clause:
    """At every point of the box, for some (row, side): row >= 0 (side LOWER) or row <= 0 (side UPPER).

    Rows count the variables' rows first, then the extra rows of the question.
    """

    literals: tuple[tuple[int, int], ...]


class Rows:
    """A condensed form with extra rows, laid out for the kernel."""

    def __init__(self, condensed: Condensed, extra: Form | None = None) -> None:
        form = condensed.stacked(extra)
        self.C, self.b, self.M, self.e = (np.ascontiguousarray(a, dtype=np.float64) for a in (form.C, form.b, form.M, form.e))
        self.partner = np.array(condensed.partner, dtype=np.int64)
        self.size = np.array(condensed.size, dtype=np.float64)
        self.reach = np.array(condensed.reach, dtype=np.float64)
        self.variables, self.count = len(self.partner), len(self.b)
        # Two writable arrays of the box: the kernel is compiled for one memory layout only.
        self.lower, self.upper = (np.array(a, dtype=np.float64).reshape(1, -1) for a in (condensed.box.lower, condensed.box.upper))
        self.zlo, self.zhi = (np.array(a, dtype=np.float64).reshape(1, -1) for a in (condensed.lower, condensed.upper))
        # Below this size a violation at a point may be rounding: not a witness. (Completeness only; proofs do not use it.)
        base = np.abs(self.C) @ self.reach + np.abs(self.b) + np.abs(self.M) @ self.size
        self.doubt = 4 * (self.e + gamma(4 * self.variables + 32) * base)

    def bound(self, lo: Array, hi: Array, zlo: Array, zhi: Array, want: NDArray[np.int8]) -> tuple[Array, Array, Array, Array]:
        """Kernel call: tightens zlo and zhi in place; returns (low, high) of the extra rows, smear and vertex."""
        shape = (len(lo), self.count - self.variables)
        low, high, smear, vertex = np.empty(shape), np.empty(shape), np.empty_like(lo), np.empty_like(lo)
        bound_boxes(
            self.C, self.b, self.M, self.e, self.partner, self.size, self.reach, lo, hi, zlo, zhi, want, low, high, smear, vertex
        )
        return low, high, smear, vertex

    def evaluate(self, points: Array) -> Array:
        """All rows at points (m, n), as (m, rows), in plain float64."""
        return np.asarray(evaluate_rows(self.C, self.b, self.M, self.partner, np.ascontiguousarray(points, dtype=np.float64)))


@dataclass(slots=True)
class Found:
    """What a search gave.

    Attributes:
        proved: indices of the clauses that hold on the whole box.
        refuted: clause index -> a point (n,) violating all its rows.
        open: indices of the clauses left undecided (set aside or out of budget).
        lower, upper: bounds of the variables' rows over the whole box, (variables,).
        tree: per level, the input at which each sub-box was bisected, -1 where it was not cut (int16).
        boxes: how many sub-boxes were bounded.
        points: the concrete points evaluated, (m, n), to be used as samples.
        row_range: (2, rows) the smallest and largest value each row took on them.
    """

    proved: list[int]
    refuted: dict[int, Array]
    open: list[int]
    lower: Array
    upper: Array
    tree: list[NDArray[np.int16]] = field(default_factory=list)
    boxes: int = 0
    row_range: Array = field(default_factory=lambda: np.zeros((2, 0)))


class _Level:
    """The sub-boxes of one level: corners, inherited variable bounds, and which clauses are open where."""

    def __init__(self, lo: Array, hi: Array, zlo: Array, zhi: Array, open_: NDArray[np.bool_]) -> None:
        self.lo, self.hi, self.zlo, self.zhi, self.open = lo, hi, zlo, zhi, open_


class Search:
    """One search: `run` it once. See the module's docstring."""

    def __init__(self, rows: Rows, clauses: Sequence[Clause], *, cap: int, budget: int, deadline: float | None = None) -> None:
        self.rows, self.clauses, self.cap, self.budget, self.deadline = rows, clauses, cap, budget, deadline
        self.alive = np.ones(len(clauses), dtype=bool)
        self.aside = np.zeros(len(clauses), dtype=bool)
        self.refuted: dict[int, Array] = {}
        self.found = Found([], self.refuted, [], np.full(rows.variables, np.inf), np.full(rows.variables, -np.inf))
        self.found.row_range = np.stack([np.full(rows.count, np.inf), np.full(rows.count, -np.inf)])
        width = max((len(clause.literals) for clause in clauses), default=1)
        self.row = np.zeros((len(clauses), width), dtype=np.int64)
        self.side = np.zeros((len(clauses), width), dtype=np.int8)
        for c, clause in enumerate(clauses):
            for k, (row, side) in enumerate(clause.literals):
                self.row[c, k], self.side[c, k] = row, side

    def run(self) -> Found:
        """Search until every clause is proved, refuted or set aside, or the budget of sub-boxes (or time) is spent."""
        rows, found = self.rows, self.found
        level = _Level(rows.lower, rows.upper, rows.zlo, rows.zhi, np.ones((1, len(self.clauses)), dtype=bool))
        for _ in range(_DEPTH):
            axes, open_here = self._bound(level)
            found.tree.append(axes)
            if self._out_of_budget(open_here):
                self.aside |= open_here.any(axis=0)
                axes[:] = -1
            leaf = axes < 0
            self._keep(level, leaf)
            if leaf.all():
                break
            level = _halves(level, axes, open_here)
        else:
            self.aside |= level.open.any(axis=0)
            self._keep(level, np.ones(len(level.lo), dtype=bool))
        self._close()
        return found

    def _out_of_budget(self, open_here: NDArray[np.bool_]) -> bool:
        pending = 2 * int(open_here.any(axis=1).sum())
        late = self.deadline is not None and time.monotonic() > self.deadline
        return late or self.found.boxes + pending > self.budget

    def _keep(self, level: _Level, leaf: NDArray[np.bool_]) -> None:
        if leaf.any() and self.rows.variables:
            np.minimum(self.found.lower, level.zlo[leaf].min(axis=0), out=self.found.lower)
            np.maximum(self.found.upper, level.zhi[leaf].max(axis=0), out=self.found.upper)

    def _close(self) -> None:
        found = self.found
        found.open = np.flatnonzero(self.alive & self.aside).tolist()
        found.proved = np.flatnonzero(self.alive & ~self.aside).tolist()
        found.lower = np.maximum(np.where(np.isfinite(found.lower), found.lower, -np.inf), self.rows.zlo[0])
        found.upper = np.minimum(np.where(np.isfinite(found.upper), found.upper, np.inf), self.rows.zhi[0])

    def _bound(self, level: _Level) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
        """Bound one level; returns where each sub-box is to be cut (-1: not) and which clauses stay open in it."""
        smears = []
        for start in range(0, len(level.lo), _CHUNK):
            part = slice(start, start + _CHUNK)
            smears.append(self._bound_part(level, part))
        self.found.boxes += len(level.lo)
        level.open[:, ~self.alive] = False
        self.aside |= level.open.sum(axis=0) > self.cap
        level.open[:, self.aside] = False
        smear = np.concatenate(smears)
        middle = level.lo + (level.hi - level.lo) / 2
        smear = np.where((middle > level.lo) & (middle < level.hi), smear + 1e-300, -1.0)
        axes = smear.argmax(axis=1).astype(np.int16)
        stuck = smear.max(axis=1) < 0
        self.aside |= level.open[stuck].any(axis=0)
        level.open[:, self.aside] = False
        axes[~level.open.any(axis=1)] = -1
        return axes, level.open

    def _bound_part(self, level: _Level, part: slice) -> Array:
        rows = self.rows
        lo, hi, zlo, zhi = level.lo[part], level.hi[part], level.zlo[part], level.zhi[part]
        open_ = level.open[part]
        want = np.zeros((len(lo), rows.count), dtype=np.int8)
        for c in np.flatnonzero(self.alive & open_.any(axis=0)):
            for row, side in self.clauses[c].literals:
                want[:, row] |= np.where(open_[:, c], np.int8(side), np.int8(0))
        low, high, smear, vertex = rows.bound(lo, hi, zlo, zhi, want)
        low, high = np.concatenate([zlo, low], axis=1), np.concatenate([zhi, high], axis=1)
        for c in np.flatnonzero(self.alive):
            closed = np.zeros(len(lo), dtype=bool)
            for row, side in self.clauses[c].literals:
                closed |= low[:, row] >= 0 if side == LOWER else high[:, row] <= 0
            open_[:, c] &= ~closed
        self._witness(np.concatenate([lo + (hi - lo) / 2, vertex]))
        return smear

    def _witness(self, points: Array) -> None:
        """Refute the clauses that some point violates beyond doubt."""
        values = self.rows.evaluate(points)
        seen = self.found.row_range
        np.minimum(seen[0], values.min(axis=0), out=seen[0])
        np.maximum(seen[1], values.max(axis=0), out=seen[1])
        for c in np.flatnonzero(self.alive):
            violated = np.ones(len(points), dtype=bool)
            for row, side in self.clauses[c].literals:
                doubt = self.rows.doubt[row]
                violated &= values[:, row] < -doubt if side == LOWER else values[:, row] > doubt
            if violated.any():
                self.refuted[int(c)] = points[int(violated.argmax())].copy()
                self.alive[c] = False


def _halves(level: _Level, axes: NDArray[np.int16], open_: NDArray[np.bool_]) -> _Level:
    """The two halves of every sub-box that is cut; both share the very same face."""
    cut = np.flatnonzero(axes >= 0)
    axis = axes[cut].astype(np.int64)
    lo, hi = np.repeat(level.lo[cut], 2, axis=0), np.repeat(level.hi[cut], 2, axis=0)
    middle = level.lo[cut, axis] + (level.hi[cut, axis] - level.lo[cut, axis]) / 2
    hi[0::2][np.arange(len(cut)), axis] = middle
    lo[1::2][np.arange(len(cut)), axis] = middle
    zlo, zhi = np.repeat(level.zlo[cut], 2, axis=0), np.repeat(level.zhi[cut], 2, axis=0)
    return _Level(lo, hi, zlo, zhi, np.repeat(open_[cut], 2, axis=0))
