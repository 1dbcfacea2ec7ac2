"""Compiled: sign-gradient paths down one row of a condensed form."""

from __future__ import annotations

from typing import Any

import numpy as np

from redy.condensed.kernels.compiling import compiled

STEPS, SHRINK = 24, 0.8
"""Steps of a path; each is this share of the one before it."""


def workspace(U: int, n: int) -> tuple[Any, ...]:
    """Work arrays for `descend_row` on U variables and n inputs."""
    return np.zeros(U + 1), np.zeros(U), np.zeros((U + 1, n)), np.zeros((U, n))


@compiled
def descend_row(row, sign, U, form, lower, upper, starts, first, work):  # type: ignore[no-untyped-def]
    """The smallest value of sign * row along sign-gradient paths from the starting points; they are overwritten."""
    C, b, M, _, partner, _, _, _ = form
    n = len(lower)
    value, v, slope, dv = work
    best = np.inf
    for start in range(len(starts)):
        x = starts[start]
        step = first
        for _ in range(STEPS):
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
            step *= SHRINK
    return best


@compiled(inner=True)
def _activate(k, p, value, slope, v, dv):  # type: ignore[no-untyped-def]
    """The k-th variable and its gradient from its row's."""
    if p < 0:
        v[k] = max(value[k], 0.0)
        for i in range(slope.shape[1]):
            dv[k, i] = slope[k, i] if value[k] > 0.0 else 0.0
        return
    total = value[p] + value[k]
    v[k] = max(total, 0.0) - max(value[p], 0.0)
    for i in range(slope.shape[1]):
        dv[k, i] = (slope[p, i] + slope[k, i] if total > 0.0 else 0.0) - (slope[p, i] if value[p] > 0.0 else 0.0)
