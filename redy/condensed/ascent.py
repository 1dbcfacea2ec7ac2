"""Looking for witnesses: sign-gradient steps on one row of a condensed form, from the best of some starting points.

A candidate phase that some point of the box refutes need not be searched for: random points miss small corners of the
box that the gradient finds. What is found is a concrete point; nothing here proves anything.
"""

from __future__ import annotations

import numpy as np

from redy.condensed.kernels.ascent import descend_row, workspace
from redy.condensed.search import LOWER, Rows
from redy.model import Array

_STARTS, _TRIED = 256, 3
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
    work = workspace(rows.variables, len(lower))
    for k, (row, side) in enumerate(questions):
        sign = 1.0 if side == LOWER else -1.0
        if starts is None:
            order = np.argsort(sign * values[:, row], kind="stable")[:_TRIED]
            begin, step = np.ascontiguousarray(points[order]), _FAR
        else:
            begin, step = starts[k].reshape(1, -1).copy(), _NEAR
        met[k] = sign * descend_row(row, sign, rows.variables, rows.form, lower, upper, begin, step, work)
    return met
