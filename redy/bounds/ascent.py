"""Looking for witnesses: sign-gradient steps on one row of a condensed form, from the best of some starting points.

A candidate phase that some point of the box refutes need not be searched for: random points miss small corners of the
box that the gradient finds. What is found is a concrete point; nothing here proves anything.
"""

from __future__ import annotations

import numpy as np

from redy.bounds.branch import LOWER, Rows
from redy.bounds.compiling import compiled
from redy.model import Array

_STARTS, _TRIED, _STEPS, _SHRINK = 256, 3, 24, 0.8
_FAR, _NEAR = 0.25, 0.02
"""First steps, as shares of the box: from random points, and from a point that a search met near the boundary."""


def smallest(rows: Rows, questions: list[tuple[int, int]], starts: list[Array] | None = None) -> Array:
    """For each (row, side): the value furthest on the wrong side of zero that was met, as (len(questions),).

    Side LOWER looks for small values of the row, UPPER for large ones. starts holds a point (n,) near which to look for
    each question; without it the paths begin at the best of random points. Deterministic.
    """
    rng = np.random.default_rng(0)
    lower, upper = rows.lower[0], rows.upper[0]
    points = lower + rng.random((_STARTS, len(lower))) * (upper - lower)
    values = rows.evaluate(points if starts is None else points[:0])
    met = np.zeros(len(questions))
    for k, (row, side) in enumerate(questions):
        sign = 1.0 if side == LOWER else -1.0
        if starts is None:
            order = np.argsort(sign * values[:, row], kind="stable")[:_TRIED]
            begin, step = np.ascontiguousarray(points[order]), _FAR
        else:
            begin, step = starts[k].reshape(1, -1).copy(), _NEAR
        met[k] = sign * _descend_row(row, sign, rows.variables, rows.form, lower, upper, begin, step)
    return met


@compiled
def _descend_row(row, sign, U, form, lower, upper, starts, first):  # type: ignore[no-untyped-def]
    """The smallest value of sign * row along sign-gradient paths from the starting points; they are overwritten."""
    C, b, M, _, partner, _, _, _ = form
    n = len(lower)
    value, v = np.zeros(U + 1), np.zeros(U)
    slope, dv = np.zeros((U + 1, n)), np.zeros((U, n))
    best = np.inf
    for start in range(len(starts)):
        x = starts[start]
        step = first
        for _ in range(_STEPS):
            for k in range(min(row, U) + 1):
                r = row if k == min(row, U) else k
                total = b[r]
                for i in range(n):
                    total += C[r, i] * x[i]
                    slope[k, i] = C[r, i]
                for j in range(min(r, U)):
                    if M[r, j] != 0.0:
                        total += M[r, j] * v[j]
                        for i in range(n):
                            slope[k, i] += M[r, j] * dv[j, i]
                value[k] = total
                if k < min(row, U):
                    _activate(k, partner[k], value, slope, v, dv)
            k = min(row, U)
            best = min(best, sign * value[k])
            for i in range(n):
                away = -step if sign * slope[k, i] > 0.0 else step
                x[i] = min(max(x[i] + away * (upper[i] - lower[i]), lower[i]), upper[i])
            step *= _SHRINK
    return best


@compiled
def _activate(k, p, value, slope, v, dv):  # type: ignore[no-untyped-def]
    """The k-th variable and its gradient from its row's."""
    if p < 0:
        v[k] = max(value[k], 0.0)
        dv[k] = slope[k] if value[k] > 0.0 else np.zeros_like(slope[k])
        return
    total = value[p] + value[k]
    v[k] = max(total, 0.0) - max(value[p], 0.0)
    for i in range(slope.shape[1]):
        dv[k, i] = (slope[p, i] + slope[k, i] if total > 0.0 else 0.0) - (slope[p, i] if value[p] > 0.0 else 0.0)
