"""The bound that multipliers prove, in redy's own arithmetic: the solver only proposes them.

For any multipliers y, every feasible v of the program (binaries relaxed) has

    c.v  =  (c - A^T y).v + y.(A v)  <=  sum_j max over [l_j, u_j] of d_j v_j  +  sum_i max over [a_i, b_i] of y_i r_i

with d = c - A^T y (weak duality; Neumaier and Shcherbina, "Safe bounds in linear and mixed-integer linear
programming", Math. Programming 99, 2004, section 3). A multiplier whose sign would need an end of a row that is
infinite is set to zero first. Rounding: the computed d_j is off by at most gamma_n (|c_j| + (|A|^T |y|)_j), which
counts |v_j| at its largest; all other terms are a sum of products. So the sum of all absolute terms times gamma_N
with N above their number plus the longest column bounds the whole error (`redy.bounds.rounding`).
"""

from __future__ import annotations

import numpy as np

from redy.bounds.rounding import UNDERFLOW, gamma
from redy.milp.program import Program
from redy.model import Array


def sign_feasible(program: Program, multipliers: Array) -> Array:
    """The multipliers with those set to zero that lean on an infinite end of their row or are not finite."""
    wrong = ~np.isfinite(multipliers)
    wrong |= (multipliers > 0) & ~np.isfinite(program.row_upper)
    wrong |= (multipliers < 0) & ~np.isfinite(program.row_lower)
    return np.where(wrong, 0.0, multipliers)


def certified_bound(program: Program, multipliers: Array) -> float:
    """An upper bound of the program's maximum that holds in real arithmetic, whatever the multipliers (m,) are.

    It is inf where a variable is unbounded or something overflows.
    """
    y = sign_feasible(program, multipliers)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        products = program.values * y[program.row_of]
        pulled = np.bincount(program.columns, products, minlength=program.variables)
        spread = np.bincount(program.columns, np.abs(products), minlength=program.variables)
        reduced = program.objective - pulled
        reach = np.maximum(np.abs(program.lower), np.abs(program.upper))
        ends = np.where(y > 0, program.row_upper, np.where(y < 0, program.row_lower, 0.0))
        best = np.where(reduced > 0, reduced * program.upper, np.where(reduced < 0, reduced * program.lower, 0.0))
        value = best.sum() + (y * ends).sum() + program.offset
        size = ((np.abs(program.objective) + spread) * reach).sum() + np.abs(y * ends).sum() + abs(program.offset)
        terms = 4 * (program.variables + program.rows + len(program.values) + 8)
        slack = gamma(terms) * size + terms * UNDERFLOW * (1 + reach.sum())
        bound = np.nextafter(value + slack, np.inf)
    return float(bound) if np.isfinite(bound) else np.inf
