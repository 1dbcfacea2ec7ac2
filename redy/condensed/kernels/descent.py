"""The compiled depth-first search over sub-boxes: bisect, bound, close, refute, fold again.

The search keeps a stack of sub-boxes. Where few of the variables are still unstable, the condensed form is folded once
more inside the sub-box, and the sub-boxes below use that smaller form; one form per fold level is alive at a time.
All state lives in arrays, so that Python can call in slices and look at the clock in between.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from redy.condensed.kernels.bounds import (
    bound_boxes,
    doubts,
    evaluate_point,
    fold_rows,
    keep_unstable,
    magnitudes,
    scratch,
)
from redy.condensed.kernels.compiling import compiled

FOLDS = 12
DEPTH = 120
_FOLD_FROM, _FOLD_SHARE = 8, 0.75

ALIVE, ASIDE, REFUTED = 0, 1, 2
TOP, BOXES, NODES, WORK = 0, 1, 2, 3


@compiled
def descend(forms, counts, stack, clauses, progress, found, cap, cover, patient, budget, counters, work):  # type: ignore[no-untyped-def]
    """Work on the stack until it is empty or `budget` units of work in all have been done.

    One unit of work is one row times one variable of the form in which a sub-box is bounded: it costs about a
    nanosecond times the number of inputs, and does not depend on the machine.

    Args:
        forms: (C, b, M, e, partner, size, reach, base, names, doubt), each with a leading axis of FOLDS forms.
        counts: (FOLDS, 2) rows and variables of each form.
        stack: (lo, hi, zlo, zhi, open, level, depth), each with a leading axis of stack places.
        clauses: (rows (Q, W) as names, sides (Q, W): 1 LOWER, 2 UPPER, 0 unused).
        progress: (status, spent (Q,), nearest, witness (Q, n), left (Q,)): ALIVE, ASIDE or REFUTED; the work done in
            sub-boxes in which each clause stayed open; by how much each clause holds at the point met that comes
            nearest to refuting it (negative where it is refuted), and that point; leaves in which it stayed open.
        found: (lower, upper (root variables,), range (2, root rows), tree): bounds over all leaves, values met, cuts.
        cap: a clause on which more work was spent is set aside.
        cover: sub-boxes are cut down to this depth also where no clause is open, as long as a variable is unstable: the
            variables' bounds over all leaves are then tighter than those of the whole box.
        patient: a clause that a sub-box too small to be cut leaves open is not set aside, but asked elsewhere.
        counters: [top of stack, sub-boxes bounded, tree nodes written, work done].
        work: from `workspace`.
    """
    C, b, M, e, partner, size, reach, base, names, doubt = forms
    lo, hi, zlo, zhi, open_, level, depth = stack
    status, spent, _, _, left = progress
    lower, upper, seen, tree = found
    n, Q = lo.shape[1], len(status)
    (want, low, high), (smear, vertex, middle), (values, v, place), folding, inner = work
    placed = -1
    while counters[TOP] > 0 and counters[WORK] < budget and counters[NODES] < len(tree):
        counters[TOP] -= 1
        s = counters[TOP]
        f = level[s]
        R, U = counts[f, 0], counts[f, 1]
        tree[counters[NODES]] = -1
        counters[NODES] += 1
        some = False
        for q in range(Q):
            open_[s, q] = open_[s, q] and status[q] == ALIVE
            some = some or open_[s, q]
        if not some and depth[s] >= cover:
            _keep(U, names[f], zlo[s], zhi[s], lower, upper)
            continue
        placed = -1 if placed != f else f
        if placed < 0:
            for r in range(R):
                place[names[f, r]] = r
        placed = f
        form = (C[f], b[f], M[f], e[f], partner[f], size[f], reach[f], base[f])
        _wanted(R, open_[s], clauses, place, want[0])
        if not some:
            for r in range(U):
                want[0, r] = 3
        one = slice(s, s + 1)
        sub_box = lo[one], hi[one], zlo[one], zhi[one]
        count, fits = bound_boxes(R, U, form, *sub_box, want, low, high, smear, vertex, inner)
        work_here = (R + 4) * (U + 4 * count + 8) + 4 * fits * (count + 2)
        counters[BOXES] += 1
        counters[WORK] += work_here
        for i in range(n):
            middle[i] = lo[s, i] + (hi[s, i] - lo[s, i]) / 2
        _close(U, open_[s], clauses, place, zlo[s], zhi[s], low[0], high[0])
        for which in range(2):
            point = middle if which == 0 else vertex[0]
            evaluate_point(R, U, form, point, values, v)
            _refute(R, open_[s], clauses, place, names[f], values, doubt[f], seen, progress, point)
        some = False
        for q in range(Q):
            if open_[s, q] and status[q] == ALIVE:
                spent[q] += work_here
                if spent[q] > cap:
                    status[q] = ASIDE
                else:
                    some = True
        cut = (some and depth[s] < DEPTH) or (count > 0 and depth[s] < cover)
        axis = _axis(lo[s], hi[s], middle, smear[0]) if cut else -1
        if axis < 0:
            for q in range(Q):
                if open_[s, q] and status[q] == ALIVE:
                    left[q] += 1
                    if not patient:
                        status[q] = ASIDE
            _keep(U, names[f], zlo[s], zhi[s], lower, upper)
            continue
        tree[counters[NODES] - 1] = axis
        if U >= _FOLD_FROM and count <= _FOLD_SHARE * U and f + 1 < FOLDS:
            _fold(
                f, forms, counts, lo[s], hi[s], zlo[s], zhi[s], open_[s], clauses, place, lower, upper, folding, inner
            )
            placed = -1
            level[s] = f + 1
        _push(s, axis, middle[axis], stack)
        counters[TOP] += 2


def workspace(R: int, U: int, n: int) -> tuple[Any, ...]:
    """Work arrays for `descend` on up to R rows, U variables, n inputs."""
    wanted = (np.zeros((1, R), np.int8), np.zeros((1, R)), np.zeros((1, R)))
    inputs = (np.zeros((1, n)), np.zeros((1, n)), np.zeros(n))
    rows = (np.zeros(R), np.zeros(U), np.zeros(R, np.int64))
    folding = (np.zeros(U, np.bool_), np.zeros(R, np.bool_), np.zeros(U, np.int64))
    return wanted, inputs, rows, folding, scratch(R, U, n)


def drain(
    counts: NDArray[np.int64],
    names: NDArray[np.int64],
    stack: tuple[NDArray[Any], ...],
    found: tuple[NDArray[Any], ...],
    counters: NDArray[np.int64],
) -> None:
    """Close every sub-box left on the stack as a leaf (the budget has ended). A few dozen: not compiled."""
    _, _, zlo, zhi, _, level, _ = stack
    lower, upper, _, tree = found
    while counters[TOP] > 0:
        counters[TOP] -= 1
        s = counters[TOP]
        U = counts[level[s], 1]
        own = names[level[s], :U]
        lower[own] = np.minimum(lower[own], zlo[s, :U])
        upper[own] = np.maximum(upper[own], zhi[s, :U])
        if counters[NODES] < len(tree):
            tree[counters[NODES]] = -1
            counters[NODES] += 1


@compiled(inner=True)
def _keep(U, names, zlo, zhi, lower, upper):  # type: ignore[no-untyped-def]
    """Widen the root's variable bounds by those of a leaf."""
    for j in range(U):
        lower[names[j]] = min(lower[names[j]], zlo[j])
        upper[names[j]] = max(upper[names[j]], zhi[j])


@compiled(inner=True)
def _wanted(R, open_, clauses, place, want):  # type: ignore[no-untyped-def]
    rows, sides = clauses
    for r in range(R):
        want[r] = 0
    for q in range(len(open_)):
        if open_[q]:
            for k in range(rows.shape[1]):
                if sides[q, k] != 0:
                    want[place[rows[q, k]]] |= sides[q, k]


@compiled(inner=True)
def _close(U, open_, clauses, place, zlo, zhi, low, high):  # type: ignore[no-untyped-def]
    """A clause is closed here when one of its rows is bounded on the stated side of zero."""
    rows, sides = clauses
    for q in range(len(open_)):
        if not open_[q]:
            continue
        for k in range(rows.shape[1]):
            r = place[rows[q, k]]
            l, u = (zlo[r], zhi[r]) if r < U else (low[r - U], high[r - U])
            if (sides[q, k] == 1 and l >= 0.0) or (sides[q, k] == 2 and u <= 0.0):
                open_[q] = False


@compiled(inner=True)
def _refute(R, open_, clauses, place, names, values, doubt, seen, progress, point):  # type: ignore[no-untyped-def]
    """Refute the open clauses all of whose rows have the wrong sign at the point, beyond rounding."""
    status, _, nearest, witness, _ = progress
    rows, sides = clauses
    for r in range(R):
        seen[0, names[r]] = min(seen[0, names[r]], values[r] + doubt[r])
        seen[1, names[r]] = max(seen[1, names[r]], values[r] - doubt[r])
    for q in range(len(open_)):
        if not open_[q] or status[q] != ALIVE:
            continue
        violated, held = True, -np.inf
        for k in range(rows.shape[1]):
            r = place[rows[q, k]]
            if sides[q, k] != 0:
                value = values[r] if sides[q, k] == 1 else -values[r]
                # Written so that a value that is not a number violates nothing.
                violated = violated and value < -doubt[r]
                held = max(held, value)
        if violated:
            status[q] = REFUTED
        if violated or held < nearest[q]:
            nearest[q] = held
            for i in range(len(point)):
                witness[q, i] = point[i]


@compiled(inner=True)
def _axis(lo, hi, middle, smear):  # type: ignore[no-untyped-def]
    """The input with the largest share that can still be bisected, or -1."""
    best, axis = -1.0, -1
    for i in range(len(lo)):
        if lo[i] < middle[i] < hi[i] and smear[i] > best:
            best, axis = smear[i], i
    return axis


@compiled(inner=True)
def _push(s, axis, middle, stack):  # type: ignore[no-untyped-def]
    """Replace stack place s by the upper half and put the lower half on top of it."""
    lo, hi, zlo, zhi, open_, level, depth = stack
    depth[s] += 1
    for i in range(lo.shape[1]):
        lo[s + 1, i], hi[s + 1, i] = lo[s, i], hi[s, i]
    for j in range(zlo.shape[1]):
        zlo[s + 1, j], zhi[s + 1, j] = zlo[s, j], zhi[s, j]
    for q in range(open_.shape[1]):
        open_[s + 1, q] = open_[s, q]
    level[s + 1], depth[s + 1] = level[s], depth[s]
    hi[s + 1, axis] = middle
    lo[s, axis] = middle


@compiled(inner=True)
def _fold(f, forms, counts, lo, hi, zlo, zhi, open_, clauses, place, lower, upper, folding, work):  # type: ignore[no-untyped-def]
    """Write form f folded inside the sub-box as form f + 1; zlo, zhi are renumbered to its variables."""
    C, b, M, e, partner, size, reach, base, names, doubt = forms
    R, U = counts[f, 0], counts[f, 1]
    rows, sides = clauses
    kept, needed, new = folding
    form = (C[f], b[f], M[f], e[f], partner[f], size[f], reach[f], base[f])
    kept_count = keep_unstable(U, partner[f], zlo, zhi, kept)
    fold_rows(R, U, form, zlo, kept, work)
    FC, Fb, FM, Ferr = work[0][0], work[0][1], work[0][2], work[0][3]
    for r in range(R):
        needed[r] = False
    for q in range(len(open_)):
        if open_[q]:
            for k in range(rows.shape[1]):
                if sides[q, k] != 0:
                    needed[place[rows[q, k]]] = True
    g = f + 1
    out = np.int64(0)
    for step in range(2):
        for r in range(R):
            variable = r < U and kept[r]
            if (step == 0 and variable) or (step == 1 and not variable and needed[r]):
                b[g, out], e[g, out] = Fb[r], Ferr[r]
                for i in range(len(lo)):
                    C[g, out, i] = FC[r, i]
                for k in range(kept_count):
                    M[g, out, k] = FM[r, k] if k < work[0][5][r] else 0.0
                names[g, out] = names[f, r]
                if variable:
                    new[r] = out
                    partner[g, out] = new[partner[f, r]] if partner[f, r] >= 0 else -1
                out += 1
    for j in range(U):
        if not kept[j]:
            lower[names[f, j]] = min(lower[names[f, j]], zlo[j])
            upper[names[f, j]] = max(upper[names[f, j]], zhi[j])
    for j in range(U):
        if kept[j]:
            zlo[new[j]], zhi[new[j]] = zlo[j], zhi[j]
    for j in range(kept_count):
        size[g, j] = max(0.0, zhi[j]) if partner[g, j] < 0 else max(abs(zlo[j]), abs(zhi[j]))
    for i in range(len(lo)):
        reach[g, i] = max(abs(lo[i]), abs(hi[i]))
    counts[g, 0], counts[g, 1] = out, kept_count
    magnitudes(out, kept_count, C[g], b[g], M[g], size[g], reach[g], base[g])
    doubts(out, kept_count, M[g], e[g], partner[g], base[g], len(lo), doubt[g])
