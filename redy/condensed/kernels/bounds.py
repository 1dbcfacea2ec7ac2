"""The compiled kernel: linear bounds of the condensed form on many sub-boxes at once.

For each sub-box the rows are processed in order. A row is first *folded*: variables that are stable in this sub-box are
replaced by their rows, so that only variables unstable here remain. A row whose sign is open is then bounded by
backward substitution of linear relaxations (CROWN; Zhang et al., NeurIPS 2018, section 3.2) and concretised on the
sub-box.

Variables are v = relu(z) or, with a partner p, the difference v = relu(z_p + d) - relu(z_p) whose row is d. A
difference is relaxed from d alone (gap max |d|) or by the separate relaxations of its two ReLUs, whichever gap is
smaller: the first is tight for small d, only the second tightens as the box shrinks.

Rounding. Relaxations are valid for the float64 slopes and intercepts actually used. Every coefficient error then acts
on a variable of bounded size, so the error of a bound is at most gamma_K times the sum of absolute terms met on the way
(`mag`), plus the errors `err` that the rows carry, where K counts the roundings any one product can pass
(Higham, section 3.1). No fast-math: the compiler may neither reorder nor contract.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from redy.condensed.kernels.compiling import compiled
from redy.condensed.kernels.row_bounds import blame_inputs, bound_row, fit, fold_row, note, sum_range
from redy.condensed.kernels.unit_lines import difference_lines, relu_gap, relu_lines

_EPS = 2.0**-52
_TINY = 1e-290


def scratch(R: int, U: int, n: int) -> tuple[Any, ...]:
    """Work arrays for `bound_boxes` on up to R rows, U variables, n inputs."""
    folded = (
        np.zeros((R + 1, n)),
        np.zeros(R + 1),
        np.zeros((R + 1, U)),
        np.zeros(R + 1),
        np.zeros(R + 1),
        np.zeros(R + 1, np.int64),
    )
    state = (np.zeros(U), np.zeros(U), np.zeros(U, np.int64))
    lines = (np.zeros((U, 6)), np.zeros((U, 2), np.int64))
    blame = (np.zeros((U, n)), np.zeros(U), np.zeros(n))
    return folded, state, lines, (np.zeros(U), np.zeros(n)), blame, (np.zeros(U), np.zeros(U))


@compiled(inner=True)
def roundings(U, n):  # type: ignore[no-untyped-def]
    """gamma_K, rounded up: a product passes at most 2 roundings per variable and side, then n + a few for the final
    sum.
    """
    return (8.0 * U + n + 32.0) * 2.0**-53 * 1.01


@compiled
def bound_boxes(R, U, form, los, his, zlos, zhis, wants, lows, highs, smears, vertices, work):  # type: ignore[no-untyped-def]
    """Bound the R rows of a condensed form (the first U are its variables') on N sub-boxes.

    Args:
        form: (C (R, n), b (R,), M (R, U), e (R,), partner (U,), size (U,), reach (n,), base (R,)); the arrays may be
        larger.
        los, his: (N, n) the sub-boxes, inside the box for which `size` and `reach` hold.
        zlos, zhis: (N, U) sound bounds of the variables' rows on entry; tightened in place.
        wants: (N, R) 1 asks for the row's lower bound, 2 for its upper bound, 3 for both, 0 for neither.
        lows, highs: (N, R - U) receive the bounds asked of the rows behind the variables (-inf, inf where not asked).
        smears: (N, n) receive how much each input contributes to the open bounds (a heuristic for cutting).
        vertices: (N, n) receive the corner that the worst open row points to (a candidate witness).
        work: from `scratch`.

    Returns how many variables are unstable in the last sub-box, and how many bounds were computed to fit slopes.
    """
    folded, state, (lines, partners), (coef, acc), blame, fitting = work
    shares, gaps, _ = blame
    alpha, beta, place = state
    partner = form[4]
    n = los.shape[1]
    g = roundings(U, n)
    count, fits = np.int64(0), np.int64(0)
    for x in range(len(los)):
        lo, hi, zlo, zhi, want = los[x], his[x], zlos[x], zhis[x], wants[x]
        low, high, smear, vertex = lows[x], highs[x], smears[x], vertices[x]
        count, fits = np.int64(0), np.int64(0)
        worst = -1.0
        for i in range(n):
            smear[i] = 0.0
            vertex[i] = lo[i]
        for r in range(R):
            asked = want[r]
            if r >= U:
                low[r - U], high[r - U] = -np.inf, np.inf
                if asked == 0:
                    continue
            fold_row(r, U, form, state, folded, count, g)
            l, u = (zlo[r], zhi[r]) if r < U else (-np.inf, np.inf)
            whole = r < U and (l < 0.0 < u or partner[r] >= 0)
            if whole:
                for i in range(n):
                    shares[count, i] = 0.0
            for side in range(2):
                upper = side == 1
                if not whole and not asked & (1 + side):
                    continue
                bound = bound_row(r, upper, folded, count, lines, partners, lo, hi, g, coef, acc)
                bound = min(u, bound) if upper else max(l, bound)
                if asked & (1 + side) and (bound > 0.0 if upper else bound < 0.0):
                    bound, tried = fit(r, upper, bound, folded, count, lines, partners, lo, hi, g, coef, acc, fitting)
                    fits += tried
                    if bound > 0.0 if upper else bound < 0.0:
                        worst = note(acc, coef, count, lo, hi, abs(bound), upper, worst, blame, smear, vertex)
                if upper:
                    u = bound
                else:
                    l = bound
            if r >= U:
                low[r - U], high[r - U] = l, u
                continue
            if whole:
                blame_inputs(acc, coef, count, lo, hi, blame, shares[count])
            zlo[r], zhi[r] = l, u
            place[r], alpha[r], beta[r] = -1, 0.0, 0.0
            p = partner[r]
            if p < 0:
                if l >= 0.0:
                    alpha[r] = 1.0
                elif u > 0.0:
                    lines[count, 0], lines[count, 3], lines[count, 5] = relu_lines(l, u)
                    lines[count, 1], lines[count, 2], lines[count, 4] = 0.0, 0.0, 0.0
                    partners[count, 0], partners[count, 1] = r, r
                    place[r] = count
                    gaps[count] = relu_gap(l, u)
                    count += 1
                continue
            pl, pu = zlo[p], zhi[p]
            pair = len(folded[1]) - 1
            sl, su = sum_range(r, p, l, u, pl, pu, pair, folded, count, lines, partners, lo, hi, g, coef, acc)
            if (pl >= 0.0 or pu <= 0.0) and (sl >= 0.0 or su <= 0.0):
                alpha[r] = 1.0 if sl >= 0.0 else 0.0
                beta[r] = alpha[r] - (1.0 if pl >= 0.0 else 0.0)
            else:
                difference_lines(pl, pu, l, u, sl, su, lines[count])
                partners[count, 0], partners[count, 1] = r, p
                place[r] = count
                gaps[count] = min(relu_gap(pl, pu) + relu_gap(sl, su), max(-l, u))
                count += 1
    return count, fits


@compiled
def magnitudes(R, U, C, b, M, size, reach, base):  # type: ignore[no-untyped-def]
    """Write the sum of absolute terms of each of R rows to `base`."""
    for r in range(R):
        total = abs(b[r])
        for i in range(len(reach)):
            total += abs(C[r, i]) * reach[i]
        for j in range(U):
            total += abs(M[r, j]) * size[j]
        base[r] = total


@compiled
def doubts(R, U, M, e, partner, base, n, doubt):  # type: ignore[no-untyped-def]
    """Write how far `evaluate_point` may be from each of R rows: e, its own roundings, and doubts of variables."""
    g = roundings(U, n)
    for r in range(R):
        total = e[r] + g * base[r]
        for j in range(min(r, U)):
            if M[r, j] != 0.0:
                p = partner[j]
                apart = doubt[j] if p < 0 else doubt[j] + 2.0 * doubt[p] + 4.0 * _EPS * (base[j] + base[p])
                total += abs(M[r, j]) * apart
        doubt[r] = total * (1.0 + 1e-9) + _TINY


@compiled(inner=True)
def keep_unstable(U, partner, zlo, zhi, kept):  # type: ignore[no-untyped-def]
    """Mark the variables that must stay variables where their rows lie in [zlo, zhi]; returns how many."""
    for r in range(U):
        p = partner[r]
        stable = zlo[r] >= 0.0 or zhi[r] <= 0.0
        if p >= 0:
            low, high = zlo[p] + zlo[r], zhi[p] + zhi[r]
            slack = 4.0 * _EPS * (abs(low) + abs(high)) + _TINY
            stable = (zlo[p] >= 0.0 or zhi[p] <= 0.0) and (low > slack or high < -slack)
        kept[r] = not stable
    count = 0
    for r in range(U):
        if kept[r] and partner[r] >= 0:
            kept[partner[r]] = True
    for r in range(U):
        count += kept[r]
    return count


@compiled(inner=True)
def fold_rows(R, U, form, zlo, kept, work):  # type: ignore[no-untyped-def]
    """Fold R rows inside one sub-box: variables not `kept` (U,) are stable there, by zlo. The result is in work[0]."""
    folded, state = work[0], work[1]
    alpha, beta, place = state
    partner = form[4]
    g = roundings(U, len(form[6]))
    count = np.int64(0)
    for r in range(R):
        fold_row(r, U, form, state, folded, count, g)
        if r < U:
            place[r], alpha[r], beta[r] = -1, 0.0, 0.0
            p = partner[r]
            if kept[r]:
                place[r] = count
                count += 1
            elif p < 0:
                alpha[r] = 1.0 if zlo[r] >= 0.0 else 0.0
            else:
                alpha[r] = 1.0 if zlo[p] + zlo[r] > 0.0 else 0.0
                beta[r] = alpha[r] - (1.0 if zlo[p] >= 0.0 else 0.0)
    return count


@compiled(inner=True)
def evaluate_point(R, U, form, point, out, v):  # type: ignore[no-untyped-def]
    """All rows at one point (n,), in plain float64, into out (R,); v (U,) is scratch."""
    C, b, M, partner = form[0], form[1], form[2], form[4]
    for r in range(R):
        total = b[r]
        for i in range(len(point)):
            total += C[r, i] * point[i]
        for j in range(min(r, U)):
            total += M[r, j] * v[j]
        out[r] = total
        if r < U:
            p = partner[r]
            v[r] = max(total, 0.0) if p < 0 else max(out[p] + total, 0.0) - max(out[p], 0.0)


@compiled
def evaluate_rows(R, U, form, points, out, v):  # type: ignore[no-untyped-def]
    """All rows at points (m, n), in plain float64, into out (m, R); v (U,) is scratch."""
    for x in range(len(points)):
        evaluate_point(R, U, form, points[x], out[x], v)
