"""Branching on the input box over a condensed form: the one search behind every question of the engine.

A question is a `Clause`: at every point of the box at least one of its rows has the stated sign. "Unit i is active",
"this linear form of the outputs is non-negative" and "the winner is kept" are clauses. The search bisects the box
depth first (`descent`); a clause is closed in a sub-box when one of its rows is bounded there on the right side,
refuted when a concrete point violates all its rows, and *set aside* when more than `cap` units of work went into
sub-boxes where it stays open: such a clause returns later, in a smaller condensed form (iterative deepening, see
`phases`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redy.condensed.form import Condensed, Form
from redy.condensed.kernels import descent
from redy.condensed.kernels.bounds import bound_boxes, doubts, evaluate_rows, magnitudes, scratch
from redy.model import Array

LOWER, UPPER = 1, 2
_SLICE = 20_000_000
"""Work between two looks at the clock."""
_NODES = 16_000_000
"""Sub-boxes that one search may record."""

_LARGEST = 2.0**100
"""Coefficients that underflow act on inputs and variables; the kernel allows for no more than this in all."""

_Cell = tuple[Array, Array, Array, Array]


@dataclass(frozen=True, slots=True)
class Clause:
    """At every point of the box, for some (row, side): row >= 0 (side LOWER) or row <= 0 (side UPPER).

    Rows count the variables' rows first, then the extra rows of the question.
    """

    literals: tuple[tuple[int, int], ...]


class Rows:
    """Rows of a condensed form over its box, laid out for the kernel.

    Attributes:
        variables, count: how many rows belong to variables, and how many there are.
        lower, upper: (1, n) the box; zlo, zhi: (1, variables) bounds of the variables' rows in it.
        doubt: (count,) how far a row evaluated at a point of the box may be from its value in real arithmetic.
    """

    def __init__(self, arrays: tuple[Array, ...], partner: NDArray[np.int64], at: _Cell) -> None:
        # Contiguous writable copies: the kernel is compiled for one memory layout only.
        self.C, self.b, self.M, self.e = (np.array(a, dtype=np.float64, order="C") for a in arrays)
        self.partner = np.array(partner, dtype=np.int64)
        self.variables, self.count = len(partner), len(self.b)
        self.lower, self.upper, self.zlo, self.zhi = (np.array(a, dtype=np.float64).reshape(1, -1) for a in at)
        self.reach = np.maximum(np.abs(self.lower), np.abs(self.upper))[0]
        reach = np.maximum(np.abs(self.zlo), np.abs(self.zhi))[0]
        self.size = np.where(self.partner < 0, np.maximum(self.zhi[0], 0.0), reach)
        if not self.reach.sum() + self.size.sum() < _LARGEST:
            self.e[:] = np.inf
        self.base = np.zeros(self.count)
        magnitudes(self.count, self.variables, self.C, self.b, self.M, self.size, self.reach, self.base)
        self.doubt, n = np.zeros(self.count), len(self.reach)
        doubts(self.count, self.variables, self.M, self.e, self.partner, self.base, n, self.doubt)

    @classmethod
    def of(cls, condensed: Condensed, extra: Form | None = None, *, first: int | None = None) -> Rows:
        """The first (default: all) variable rows of a condensed form over its box, then the rows of `extra`.

        `extra` may use the first variables only.
        """
        k = len(condensed.variables) if first is None else first
        form, box = condensed.stacked(extra, first=k), condensed.box
        at = (box.lower, box.upper, np.array(condensed.lower[:k]), np.array(condensed.upper[:k]))
        return cls((form.C, form.b, form.M, form.e), np.array(condensed.partner[:k], dtype=np.int64), at)

    @property
    def form(self) -> tuple[Array, Array, Array, Array, NDArray[np.int64], Array, Array, Array]:
        """The kernel's view of the rows."""
        return self.C, self.b, self.M, self.e, self.partner, self.size, self.reach, self.base

    def bound(
        self, lo: Array, hi: Array, zlo: Array, zhi: Array, want: NDArray[np.int8]
    ) -> tuple[Array, Array, Array, Array]:
        """Bounds on sub-boxes [lo, hi] (N, n), given sound zlo, zhi (N, variables), which are tightened in place.

        want (N, count) int8: 1 asks for a row's lower bound, 2 for its upper bound, 3 for both, 0 for neither.
        Returns (low, high) (N, count - variables) of the extra rows, smear (N, n) and vertex (N, n), see `kernel`.
        """
        shape = (len(lo), self.count - self.variables)
        low, high, smear, vertex = np.empty(shape), np.empty(shape), np.empty_like(lo), np.empty_like(lo)
        work = scratch(self.count, self.variables, lo.shape[1])
        bound_boxes(self.count, self.variables, self.form, lo, hi, zlo, zhi, want, low, high, smear, vertex, work)
        return low, high, smear, vertex

    def evaluate(self, points: Array) -> Array:
        """All rows at points (m, n), as (m, count), in plain float64."""
        points = np.ascontiguousarray(points, dtype=np.float64)
        out = np.zeros((len(points), self.count))
        evaluate_rows(self.count, self.variables, self.form, points, out, np.zeros(self.variables))
        return out


@dataclass(slots=True)
class Found:
    """What a search gave.

    Attributes:
        proved: indices of the clauses that hold on the whole box.
        refuted: clause index -> a point (n,) violating all its rows.
        open: index of a clause left undecided (set aside or out of budget) -> the point met that comes nearest to
            violating all its rows.
        lower, upper: bounds of the variables' rows over the whole box, (variables,).
        row_range: (2, count) the smallest and largest value that each row certainly reached at the points evaluated.
        tree: in pre-order, the input at which each sub-box was bisected in the middle, -1 for a leaf (int16).
        boxes: how many sub-boxes were bounded.
        work: units of work done (see `descent`), a measure of cost that does not depend on the machine.
    """

    proved: list[int]
    refuted: dict[int, Array]
    open: dict[int, Array]
    lower: Array
    upper: Array
    row_range: Array
    tree: NDArray[np.int16]
    boxes: int
    work: int


class Search:
    """One search: `run` it once. See the module's docstring.

    Args:
        rows, clauses: what is asked.
        cap: work on one clause after which it is set aside.
        budget: work in all.
        cover: bisections of the whole box before the first question.
        deadline: `time.monotonic()` at which the search ends.
        patient: a sub-box too small to be cut leaves its clauses open there, and they are asked elsewhere all the same.
    """

    def __init__(
        self,
        rows: Rows,
        clauses: Sequence[Clause],
        *,
        cap: int,
        budget: int,
        cover: int = 0,
        deadline: float | None = None,
        patient: bool = False,
    ) -> None:
        self.patient = patient
        self.rows, self.cap, self.budget, self.cover, self.deadline = rows, cap, max(budget, 1), cover, deadline
        width = max((len(clause.literals) for clause in clauses), default=1)
        self.clauses = np.zeros((len(clauses), width), dtype=np.int64), np.zeros((len(clauses), width), dtype=np.int8)
        for c, clause in enumerate(clauses):
            for k, (row, side) in enumerate(clause.literals):
                self.clauses[0][c, k], self.clauses[1][c, k] = row, side

    def run(self) -> Found:
        """Search until every clause is proved, refuted or set aside, or the budget of work (or time) is spent."""
        rows, clauses = self.rows, len(self.clauses[0])
        forms, counts = self._forms()
        stack = self._stack(clauses)
        status, spent = np.zeros(clauses, dtype=np.int64), np.zeros(clauses, dtype=np.int64)
        witness = np.zeros((clauses, rows.lower.shape[1]))
        left = np.zeros(clauses, dtype=np.int64)
        progress = (status, spent, np.full(clauses, np.inf), witness, left)
        lower, upper = np.full(rows.variables, np.inf), np.full(rows.variables, -np.inf)
        span = np.full(rows.count, np.inf)
        found = (lower, upper, np.stack([span, -span]), np.empty(min(_NODES, self.budget // 50 + 1000), dtype=np.int16))
        counters = np.array([1, 0, 0, 0], dtype=np.int64)
        while (
            counters[descent.TOP] > 0
            and counters[descent.WORK] < self.budget
            and counters[descent.NODES] < len(found[3])
        ):
            if self.deadline is not None and time.monotonic() > self.deadline:
                break
            limit = min(self.budget, int(counters[descent.WORK]) + _SLICE)
            self._descend(forms, counts, stack, progress, found, limit, counters)
        if counters[descent.TOP] > 0:
            status[status == descent.ALIVE] = descent.ASIDE
            descent.drain(counts, forms[8], stack, found, counters)
        status[(status == descent.ALIVE) & (left > 0)] = descent.ASIDE
        return Found(
            proved=np.flatnonzero(status == descent.ALIVE).tolist(),
            refuted={int(c): witness[c] for c in np.flatnonzero(status == descent.REFUTED)},
            open={int(c): witness[c] for c in np.flatnonzero(status == descent.ASIDE)},
            lower=np.maximum(lower, rows.zlo[0]),
            upper=np.minimum(upper, rows.zhi[0]),
            row_range=found[2],
            tree=found[3][: counters[descent.NODES]].copy(),
            boxes=int(counters[descent.BOXES]),
            work=int(counters[descent.WORK]),
        )

    def _descend(
        self,
        forms: tuple[NDArray[Any], ...],
        counts: NDArray[np.int64],
        stack: tuple[NDArray[Any], ...],
        progress: tuple[NDArray[Any], ...],
        found: tuple[NDArray[Any], ...],
        limit: int,
        counters: NDArray[np.int64],
    ) -> None:
        options = self.cap, self.cover, self.patient
        work = descent.workspace(self.rows.count, self.rows.variables, stack[0].shape[1])
        descent.descend(forms, counts, stack, self.clauses, progress, found, *options, limit, counters, work)

    def _forms(self) -> tuple[tuple[NDArray[Any], ...], NDArray[np.int64]]:
        rows = self.rows
        names = np.arange(rows.count, dtype=np.int64)
        forms = tuple(np.zeros((descent.FOLDS, *a.shape), dtype=a.dtype) for a in (*rows.form, names, rows.doubt))
        for stacked, array in zip(forms, (*rows.form, names, rows.doubt), strict=True):
            stacked[0] = array
        counts = np.zeros((descent.FOLDS, 2), dtype=np.int64)
        counts[0] = rows.count, rows.variables
        return forms, counts

    def _stack(self, clauses: int) -> tuple[NDArray[Any], ...]:
        rows, places = self.rows, descent.DEPTH + 3
        stack = tuple(np.zeros((places, a.shape[1])) for a in (rows.lower, rows.upper, rows.zlo, rows.zhi))
        for stacked, array in zip(stack, (rows.lower, rows.upper, rows.zlo, rows.zhi), strict=True):
            stacked[0] = array[0]
        open_ = np.zeros((places, clauses), dtype=np.bool_)
        open_[0] = True
        return (*stack, open_, np.zeros(places, dtype=np.int64), np.zeros(places, dtype=np.int64))
