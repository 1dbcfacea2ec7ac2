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
from redy.bounds.kernel import bound_boxes, evaluate_rows, fold_rows
from redy.bounds.rounding import gamma
from redy.model import Array

LOWER, UPPER = 1, 2
_DEPTH = 120
_CHUNK = 4096
_FOLD_FROM, _FOLD_SHARE, _FOLD_BATCH = 24, 0.7, 128
"""Fold again inside the sub-boxes of a level of at least `_FOLD_BATCH` sub-boxes, when at least `_FOLD_FROM` variables are
left and at most the share `_FOLD_SHARE` of them is unstable there."""

_Cell = tuple[Array, Array, Array, Array]


@dataclass(frozen=True, slots=True)
class Clause:
    """At every point of the box, for some (row, side): row >= 0 (side LOWER) or row <= 0 (side UPPER).

    Rows count the variables' rows first, then the extra rows of the question.
    """

    literals: tuple[tuple[int, int], ...]


class Rows:
    """Rows of a condensed form, laid out for the kernel, valid inside one box.

    Attributes:
        names: per row its number in the question's root form (variables first, then extra rows).
        variables, count: how many rows belong to variables, and how many there are.
        lower, upper: (1, n) the box; zlo, zhi: (1, variables) bounds of the variables' rows in it.
        doubt: (count,) below this size a violation at a point may be rounding: not a witness. (Proofs do not use it.)
    """

    def __init__(self, arrays: tuple[Array, ...], partner: NDArray[np.int64], names: NDArray[np.int64], at: _Cell) -> None:
        # Contiguous writable copies: the kernel is compiled for one memory layout only.
        self.C, self.b, self.M, self.e = (np.array(a, dtype=np.float64, order="C") for a in arrays)
        self.partner, self.names = np.array(partner, dtype=np.int64), names
        self.variables, self.count = len(partner), len(self.b)
        self.lower, self.upper, self.zlo, self.zhi = (np.array(a, dtype=np.float64).reshape(1, -1) for a in at)
        self.reach = np.maximum(np.abs(self.lower), np.abs(self.upper))[0]
        reach = np.maximum(np.abs(self.zlo), np.abs(self.zhi))[0]
        self.size = np.where(self.partner < 0, np.maximum(self.zhi[0], 0.0), reach)
        base = np.abs(self.C) @ self.reach + np.abs(self.b) + np.abs(self.M) @ self.size
        self.doubt = 4 * (self.e + gamma(4 * self.variables + 32) * base)

    @classmethod
    def of(cls, condensed: Condensed, extra: Form | None = None, *, first: int | None = None) -> Rows:
        """The first (default: all) variable rows of a condensed form over its box, then the rows of `extra`.

        `extra` may use the first variables only.
        """
        k = len(condensed.variables) if first is None else first
        form, box = condensed.stacked(extra, first=k), condensed.box
        at = (box.lower, box.upper, np.array(condensed.lower[:k]), np.array(condensed.upper[:k]))
        partner = np.array(condensed.partner[:k], dtype=np.int64)
        return cls((form.C, form.b, form.M, form.e), partner, np.arange(len(form.b)), at)

    def inside(self, lo: Array, hi: Array, zlo: Array, zhi: Array, needed: NDArray[np.bool_]) -> Rows:
        """The rows inside the sub-box [lo, hi] with variable bounds zlo, zhi: what is stable there is folded.

        `needed` (count,) marks the rows that questions ask about; they stay as rows.
        """
        stable = (zlo >= 0) | (zhi <= 0)
        difference = self.partner >= 0
        p = self.partner[difference]
        total = np.nextafter(zlo[p] + zlo[difference], -np.inf), np.nextafter(zhi[p] + zhi[difference], np.inf)
        stable[difference] = stable[p] & ((total[0] >= 0) | (total[1] <= 0))
        kept = ~stable
        kept[self.partner[kept & difference]] = True
        arrays = fold_rows(self.C, self.b, self.M, self.e, self.partner, self.size, self.reach, zlo, zhi, kept)
        place = np.cumsum(kept) - 1
        extra = needed.copy()
        extra[: self.variables] &= ~kept
        order = np.concatenate([np.flatnonzero(kept), np.flatnonzero(extra)])
        partner = np.where(self.partner < 0, -1, place[self.partner])[kept]
        C, b, M, e = arrays
        return Rows((C[order], b[order], M[order], e[order]), partner, self.names[order], (lo, hi, zlo[kept], zhi[kept]))

    def bound(self, lo: Array, hi: Array, zlo: Array, zhi: Array, want: NDArray[np.int8]) -> tuple[Array, Array, Array, Array]:
        """Kernel call: tightens zlo and zhi in place; returns (low, high) of the extra rows, smear and vertex."""
        shape = (len(lo), self.count - self.variables)
        low, high, smear, vertex = np.empty(shape), np.empty(shape), np.empty_like(lo), np.empty_like(lo)
        form = (self.C, self.b, self.M, self.e)
        bound_boxes(*form, self.partner, self.size, self.reach, lo, hi, zlo, zhi, want, low, high, smear, vertex)
        return low, high, smear, vertex

    def evaluate(self, points: Array) -> Array:
        """All rows at points (m, n), as (m, count), in plain float64."""
        return np.asarray(evaluate_rows(self.C, self.b, self.M, self.partner, np.ascontiguousarray(points, dtype=np.float64)))


@dataclass(slots=True)
class Found:
    """What a search gave.

    Attributes:
        proved: indices of the clauses that hold on the whole box.
        refuted: clause index -> a point (n,) violating all its rows.
        open: indices of the clauses left undecided (set aside or out of budget).
        lower, upper: bounds of the root form's variable rows over the whole box, (variables,).
        tree: in the order of the search, per batch of sub-boxes the input at which each was bisected, -1 for a leaf.
        boxes: how many sub-boxes were bounded.
        row_range: (2, rows) the smallest and largest value each row took at the points evaluated.
    """

    proved: list[int]
    refuted: dict[int, Array]
    open: list[int]
    lower: Array
    upper: Array
    row_range: Array
    tree: list[NDArray[np.int16]] = field(default_factory=list)
    boxes: int = 0


@dataclass(slots=True)
class _Level:
    """Sub-boxes of one depth: corners, bounds of the variables' rows, and which clauses are open where."""

    lo: Array
    hi: Array
    zlo: Array
    zhi: Array
    open: NDArray[np.bool_]

    def __getitem__(self, part: object) -> _Level:
        return _Level(*(a[part] for a in (self.lo, self.hi, self.zlo, self.zhi, self.open)))  # type: ignore[index]


class Search:
    """One search: `run` it once. See the module's docstring."""

    def __init__(self, rows: Rows, clauses: Sequence[Clause], *, cap: int, budget: int, deadline: float | None = None) -> None:
        self.rows, self.clauses, self.cap, self.budget, self.deadline = rows, clauses, cap, budget, deadline
        self.alive = np.ones(len(clauses), dtype=bool)
        self.aside = np.zeros(len(clauses), dtype=bool)
        self.spent = np.zeros(len(clauses), dtype=np.int64)
        span = np.full(rows.count, np.inf)
        outside = np.full(rows.variables, np.inf)
        self.found = Found([], {}, [], outside, -outside, np.stack([span, -span]))

    def run(self) -> Found:
        """Search until every clause is proved, refuted or set aside, or the budget of sub-boxes (or time) is spent."""
        rows, found = self.rows, self.found
        start = _Level(rows.lower, rows.upper, rows.zlo, rows.zhi, np.ones((1, len(self.clauses)), dtype=bool))
        self._explore(rows, start, 0)
        found.open = np.flatnonzero(self.alive & self.aside).tolist()
        found.proved = np.flatnonzero(self.alive & ~self.aside).tolist()
        found.lower, found.upper = np.maximum(found.lower, rows.zlo[0]), np.minimum(found.upper, rows.zhi[0])
        return found

    def _explore(self, rows: Rows, level: _Level, depth: int) -> None:
        """Search below `level`, whose sub-boxes lie inside the box of `rows`."""
        while True:
            axes = self._bound(rows, level)
            if self._out_of_budget(level) or depth >= _DEPTH:
                self.aside |= level.open.any(axis=0)
                axes[:] = -1
            self.found.tree.append(axes)
            self._keep(rows, level[axes < 0])
            if (axes < 0).all():
                return
            level, depth = _halves(level, axes), depth + 1
            if self._worth_folding(rows, level):
                for i in range(len(level.lo)):
                    self._descend(rows, level[i : i + 1], depth)
                return

    def _worth_folding(self, rows: Rows, level: _Level) -> bool:
        """True where folding inside each sub-box saves more than it costs."""
        unstable = ((level.zlo < 0) & (level.zhi > 0)).sum() / len(level.lo)
        return len(level.lo) >= _FOLD_BATCH and rows.variables >= _FOLD_FROM and unstable < _FOLD_SHARE * rows.variables

    def _descend(self, rows: Rows, cell: _Level, depth: int) -> None:
        """Search one sub-box in its own folded form."""
        open_ = cell.open & self.alive & ~self.aside
        if not open_.any():
            self._keep(rows, cell)
            self.found.tree.append(np.array([-1], dtype=np.int16))
            return
        needed = np.zeros(len(self.rows.b), dtype=bool)
        for c in np.flatnonzero(open_[0]):
            needed[[row for row, _ in self.clauses[c].literals]] = True
        local = rows.inside(cell.lo[0], cell.hi[0], cell.zlo[0], cell.zhi[0], needed[rows.names])
        gone = np.setdiff1d(np.arange(rows.variables), np.searchsorted(rows.names[: rows.variables], local.names[: local.variables]))
        self._keep_variables(rows.names[gone], cell.zlo[:, gone], cell.zhi[:, gone])
        self._explore(local, _Level(cell.lo, cell.hi, local.zlo.copy(), local.zhi.copy(), open_), depth)

    def _out_of_budget(self, level: _Level) -> bool:
        pending = 2 * int(level.open.any(axis=1).sum())
        late = self.deadline is not None and time.monotonic() > self.deadline
        return late or self.found.boxes + pending > self.budget

    def _keep(self, rows: Rows, leaves: _Level) -> None:
        if len(leaves.lo):
            self._keep_variables(rows.names[: rows.variables], leaves.zlo, leaves.zhi)

    def _keep_variables(self, names: NDArray[np.int64], zlo: Array, zhi: Array) -> None:
        """Widen the root's variable bounds by those of leaves."""
        found = self.found
        found.lower[names] = np.minimum(found.lower[names], zlo.min(axis=0))
        found.upper[names] = np.maximum(found.upper[names], zhi.max(axis=0))

    def _bound(self, rows: Rows, level: _Level) -> NDArray[np.int16]:
        """Bound one level, updating what is open; returns the input at which each sub-box is to be cut, or -1."""
        level.open &= self.alive & ~self.aside
        smear = np.concatenate(
            [self._bound_part(rows, level[start : start + _CHUNK]) for start in range(0, len(level.lo), _CHUNK)]
        )
        self.found.boxes += len(level.lo)
        self.spent += level.open.sum(axis=0)
        self.aside |= self.alive & (self.spent > self.cap)
        middle = level.lo + (level.hi - level.lo) / 2
        smear = np.where((middle > level.lo) & (middle < level.hi), smear + 1e-300, -1.0)
        self.aside |= level.open[smear.max(axis=1) < 0].any(axis=0)
        level.open &= self.alive & ~self.aside
        axes = smear.argmax(axis=1).astype(np.int16)
        axes[~level.open.any(axis=1)] = -1
        return axes

    def _bound_part(self, rows: Rows, part: _Level) -> Array:
        place = np.full(len(self.rows.b), -1)
        place[rows.names] = np.arange(rows.count)
        want = np.zeros((len(part.lo), rows.count), dtype=np.int8)
        asked = np.flatnonzero(part.open.any(axis=0))
        for c in asked:
            for row, side in self.clauses[c].literals:
                want[:, place[row]] |= np.where(part.open[:, c], np.int8(side), np.int8(0))
        low, high, smear, vertex = rows.bound(part.lo, part.hi, part.zlo, part.zhi, want)
        low, high = np.concatenate([part.zlo, low], axis=1), np.concatenate([part.zhi, high], axis=1)
        for c in asked:
            closed = np.zeros(len(part.lo), dtype=bool)
            for row, side in self.clauses[c].literals:
                closed |= low[:, place[row]] >= 0 if side == LOWER else high[:, place[row]] <= 0
            part.open[:, c] &= ~closed
        self._witness(rows, place, np.concatenate([part.lo + (part.hi - part.lo) / 2, vertex]), asked)
        return smear

    def _witness(self, rows: Rows, place: NDArray[np.int64], points: Array, asked: NDArray[np.int64]) -> None:
        """Refute the clauses that some point violates beyond doubt."""
        values = rows.evaluate(points)
        seen = self.found.row_range
        seen[0, rows.names] = np.minimum(seen[0, rows.names], values.min(axis=0))
        seen[1, rows.names] = np.maximum(seen[1, rows.names], values.max(axis=0))
        for c in asked:
            violated = np.ones(len(points), dtype=bool)
            for row, side in self.clauses[c].literals:
                value, doubt = values[:, place[row]], rows.doubt[place[row]]
                violated &= value < -doubt if side == LOWER else value > doubt
            if violated.any():
                self.found.refuted[int(c)] = points[int(violated.argmax())].copy()
                self.alive[c] = False


def _halves(level: _Level, axes: NDArray[np.int16]) -> _Level:
    """The two halves of every sub-box that is cut; both share the very same face."""
    cut = np.flatnonzero(axes >= 0)
    axis = axes[cut].astype(np.int64)
    halves = level[np.repeat(cut, 2)]
    middle = level.lo[cut, axis] + (level.hi[cut, axis] - level.lo[cut, axis]) / 2
    rows = np.arange(len(cut))
    halves.hi[0::2][rows, axis] = middle
    halves.lo[1::2][rows, axis] = middle
    return halves
