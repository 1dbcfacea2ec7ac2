"""The compiled kernel: linear bounds of the condensed form on many sub-boxes at once.

For each sub-box the rows are processed in order. A row is first *folded*: variables that are stable in this sub-box are
replaced by their rows, so that only variables unstable here remain. A row whose sign is open is then bounded by backward
substitution of linear relaxations (CROWN; Zhang et al., NeurIPS 2018, section 3.2) and concretised on the sub-box.

Variables are v = relu(z) or, with a partner p, the difference v = relu(z_p + d) - relu(z_p) whose row is d. A difference
is relaxed from d alone (gap max |d|) or by the separate relaxations of its two ReLUs, whichever gap is smaller: the first
is tight for small d, only the second tightens as the box shrinks.

Rounding. Relaxations are valid for the float64 slopes and intercepts actually used. Every coefficient error then acts on
a variable of bounded size, so the error of a bound is at most gamma_K times the sum of absolute terms met on the way
(`mag`), plus the errors `err` that the rows carry, where K counts the roundings any one product can pass
(Higham, section 3.1). No fast-math: the compiler may neither reorder nor contract.
"""

from __future__ import annotations

import numba
import numpy as np

_EPS = 2.0**-52
_TINY = 1e-290


@numba.njit(cache=True, inline="always")
def _relu_lines(l, u):  # type: ignore[no-untyped-def]  # numba infers types
    """(lower slope, upper slope, upper intercept) of relu on [l, u], valid in exact arithmetic; the lower line has intercept 0."""
    if l >= 0.0:
        return 1.0, 1.0, 0.0
    if u <= 0.0:
        return 0.0, 0.0, 0.0
    slope = min(u / (u - l), 1.0)
    intercept = max(-slope * l, u * (1.0 - slope)) * (1.0 + 4.0 * _EPS) + _TINY
    return (1.0 if u > -l else 0.0), slope, intercept


@numba.njit(cache=True, inline="always")
def _relu_gap(l, u):  # type: ignore[no-untyped-def]
    """The largest distance between the two lines of `_relu_lines` (a heuristic size: rounding does not matter)."""
    if l >= 0.0 or u <= 0.0:
        return 0.0
    return max(-l * u / (u - l), min(u, -l))


@numba.njit(cache=True)
def _difference_lines(l, u, dl, du, sl, su, out):  # type: ignore[no-untyped-def]
    """Lines for v = relu(z + d) - relu(z), z in [l, u], d in [dl, du], z + d in [sl, su].

    out = (alpha, beta, t) of the lower, then of the upper line alpha * d + beta * z + t.
    """
    low, slope, intercept = _relu_lines(l, u)
    low2, slope2, intercept2 = _relu_lines(sl, su)
    separate = _relu_gap(l, u) + _relu_gap(sl, su)
    if separate <= max(-dl, du):
        out[0], out[1], out[2] = low2, low2 - slope, -intercept
        out[3], out[4], out[5] = slope2, slope2 - low, intercept2
        return
    # v lies between 0 and d: relu is monotone and 1-Lipschitz.
    out[1] = 0.0
    out[4] = 0.0
    if dl >= 0.0:
        out[0], out[2], out[3], out[5] = 0.0, 0.0, 1.0, 0.0
    elif du <= 0.0:
        out[0], out[2], out[3], out[5] = 1.0, 0.0, 0.0, 0.0
    else:
        _, out[3], out[5] = _relu_lines(dl, du)
        # min(0, d) = -relu(-d): the lower line mirrors the upper line of relu on [-du, -dl].
        _, mirrored, offset = _relu_lines(-du, -dl)
        out[0], out[2] = mirrored, -offset


@numba.njit(cache=True)
def _fold_row(r, form, partner, size, reach, base, state, folded, count, g):  # type: ignore[no-untyped-def]
    """Fold row r of the condensed form: stable variables become their rows, `count` unstable ones stay.

    form = (C, b, M, e); state = (alpha, beta, place): v = alpha * row + beta * partner's row, or the place-th unstable
    variable; folded = (C, b, M, err, mag, columns) receives the row. mag is the sum of absolute terms of the folded row,
    base[r] that of the original one.
    """
    C, b, M, e = form
    alpha, beta, place = state
    FC, Fb, FM, Ferr, Fmag, columns = folded
    n, U = C.shape[1], M.shape[1]
    for i in range(n):
        FC[r, i] = C[r, i]
    for k in range(count):
        FM[r, k] = 0.0
    total, error, weight = b[r], e[r], base[r]
    for j in range(min(r, U)):
        w = M[r, j]
        if w == 0.0:
            continue
        if place[j] >= 0:
            FM[r, place[j]] += w
            continue
        for side in range(2):
            f = w * (alpha[j] if side == 0 else beta[j])
            if f != 0.0:
                source = j if side == 0 else partner[j]
                for i in range(n):
                    FC[r, i] += f * FC[source, i]
                for k in range(columns[source]):
                    FM[r, k] += f * FM[source, k]
                total += f * Fb[source]
                error += abs(f) * Ferr[source]
                weight += abs(f) * Fmag[source]
    Fb[r] = total
    columns[r] = count
    magnitude = abs(total)
    for i in range(n):
        magnitude += abs(FC[r, i]) * reach[i]
    for j in range(min(r, U)):
        if place[j] >= 0:
            magnitude += abs(FM[r, place[j]]) * size[j]
    Fmag[r] = magnitude
    Ferr[r] = (error + g * weight) * (1.0 + 1e-9) + _TINY


@numba.njit(cache=True)
def _bound_row(r, upper, folded, count, lines, partners, lo, hi, g, coef, acc):  # type: ignore[no-untyped-def]
    """A bound of folded row r: back-substitute its unstable variables, then concretise on [lo, hi].

    lines (k, 6): lower and upper (alpha, beta, t) of the k-th unstable variable; partners (k, 2): its own row and its
    partner's. acc (n,) receives the final coefficients. Returns the bound, rounded outwards.
    """
    FC, Fb, FM, Ferr, Fmag, columns = folded
    n = len(lo)
    for i in range(n):
        acc[i] = FC[r, i]
    for k in range(count):
        coef[k] = FM[r, k]
    total, error, weight = Fb[r], Ferr[r], Fmag[r]
    for k in range(count - 1, -1, -1):
        a = coef[k]
        if a == 0.0:
            continue
        side = 3 if (a > 0.0) == upper else 0
        t = a * lines[k, side + 2]
        total += t
        weight += abs(t)
        for which in range(2):
            f = a * lines[k, side + which]
            if f != 0.0:
                j = partners[k, which]
                for i in range(n):
                    acc[i] += f * FC[j, i]
                for m in range(columns[j]):
                    coef[m] += f * FM[j, m]
                total += f * Fb[j]
                error += abs(f) * Ferr[j]
                weight += abs(f) * Fmag[j]
    for i in range(n):
        total += acc[i] * (hi[i] if (acc[i] > 0.0) == upper else lo[i])
    slack = (error + g * weight) * (1.0 + 1e-9) + abs(total) * (2.0 * _EPS) + _TINY
    return total + slack if upper else total - slack


@numba.njit(cache=True)
def _sum_range(r, p, l, u, pl, pu, pair, folded, count, lines, partners, lo, hi, g, coef, acc):  # type: ignore[no-untyped-def]
    """The range of z_p + d for the difference row r: the sum of both ranges, or its own row where that leaves the sign open."""
    sl, su = (pl + l) - abs(pl + l) * _EPS - _TINY, (pu + u) + abs(pu + u) * _EPS + _TINY
    if sl < 0.0 and su > 0.0:
        FC, Fb, FM, Ferr, Fmag, columns = folded
        for i in range(len(lo)):
            FC[pair, i] = FC[r, i] + FC[p, i]
        for k in range(count):
            FM[pair, k] = FM[r, k]
        for k in range(columns[p]):
            FM[pair, k] += FM[p, k]
        Fb[pair], Fmag[pair], columns[pair] = Fb[r] + Fb[p], Fmag[r] + Fmag[p], count
        Ferr[pair] = (Ferr[r] + Ferr[p]) * (1.0 + 1e-9)
        sl = max(sl, _bound_row(pair, False, folded, count, lines, partners, lo, hi, g, coef, acc))
        su = min(su, _bound_row(pair, True, folded, count, lines, partners, lo, hi, g, coef, acc))
    return sl, su


@numba.njit(cache=True)
def _note(acc, lo, hi, gap, upper, worst, smear, vertex):  # type: ignore[no-untyped-def]
    """Add an open row's share to the smear; keep the corner of the worst row. Returns the new worst gap."""
    total = 1e-300
    for i in range(len(lo)):
        total += abs(acc[i]) * (hi[i] - lo[i])
    for i in range(len(lo)):
        smear[i] += abs(acc[i]) * (hi[i] - lo[i]) / total
    if gap > worst:
        for i in range(len(lo)):
            vertex[i] = hi[i] if (acc[i] > 0.0) == upper else lo[i]
        return gap
    return worst


@numba.njit(cache=True)
def bound_boxes(C, b, M, e, partner, size, reach, lo, hi, zlo, zhi, want, low, high, smear, vertex):  # type: ignore[no-untyped-def]
    """Bound every row of the condensed form on every sub-box.

    Args:
        C, b, M, e: R rows, the first U of them the variables' own (C (R, n), b (R,), M (R, U), e (R,)).
        partner: (U,) -1 or the partner of a difference variable.
        size: (U,) bounds on |v|; reach: (n,) bounds on |x|, both over the root box.
        lo, hi: (N, n) the sub-boxes, inside the root box.
        zlo, zhi: (N, U) sound bounds of the variables' rows on entry (inherited); tightened in place.
        want: (N, R) int8: 1 asks for the row's lower bound, 2 for its upper bound, 3 for both, 0 for neither.
        low, high: (N, R - U) receive the bounds asked of the rows behind the variables (-inf, inf where not asked).
        smear: (N, n) receives how much each input contributes to the open bounds (a heuristic for cutting).
        vertex: (N, n) receives the corner that the worst open row points to (a candidate witness).
    """
    N, n = lo.shape
    R, U = M.shape
    # Any product passes at most 2 roundings per substituted variable and side, then n + a few for the final sum.
    g = (8.0 * U + n + 32.0) * 2.0**-53 * 1.01
    form = (C, b, M, e)
    base = _base(C, b, M, size, reach)
    folded = (np.zeros((R + 1, n)), np.zeros(R + 1), np.zeros((R + 1, U)), np.zeros(R + 1), np.zeros(R + 1), np.zeros(R + 1, np.int64))
    alpha, beta, place = np.zeros(U), np.zeros(U), np.zeros(U, np.int64)
    state = (alpha, beta, place)
    lines, partners = np.zeros((U, 6)), np.zeros((U, 2), np.int64)
    coef, acc = np.zeros(U), np.zeros(n)
    for x in range(N):
        count = 0
        worst = -1.0
        for i in range(n):
            smear[x, i] = 0.0
            vertex[x, i] = lo[x, i]
        for r in range(R):
            asked = want[x, r]
            if r >= U:
                low[x, r - U], high[x, r - U] = -np.inf, np.inf
                if asked == 0:
                    continue
            _fold_row(r, form, partner, size, reach, base, state, folded, count, g)
            l, u = (zlo[x, r], zhi[x, r]) if r < U else (-np.inf, np.inf)
            whole = r < U and (l < 0.0 < u or partner[r] >= 0)
            if whole or asked & 1:
                l = max(l, _bound_row(r, False, folded, count, lines, partners, lo[x], hi[x], g, coef, acc))
                if asked & 1 and l < 0.0:
                    worst = _note(acc, lo[x], hi[x], -l, False, worst, smear[x], vertex[x])
            if whole or asked & 2:
                u = min(u, _bound_row(r, True, folded, count, lines, partners, lo[x], hi[x], g, coef, acc))
                if asked & 2 and u > 0.0:
                    worst = _note(acc, lo[x], hi[x], u, True, worst, smear[x], vertex[x])
            if r >= U:
                low[x, r - U], high[x, r - U] = l, u
                continue
            zlo[x, r], zhi[x, r] = l, u
            place[r], alpha[r], beta[r] = -1, 0.0, 0.0
            p = partner[r]
            if p < 0:
                if l >= 0.0:
                    alpha[r] = 1.0
                elif u > 0.0:
                    lines[count, 0], lines[count, 3], lines[count, 5] = _relu_lines(l, u)
                    lines[count, 1], lines[count, 2], lines[count, 4] = 0.0, 0.0, 0.0
                    partners[count, 0], partners[count, 1] = r, r
                    place[r] = count
                    count += 1
                continue
            pl, pu = zlo[x, p], zhi[x, p]
            sl, su = _sum_range(r, p, l, u, pl, pu, R, folded, count, lines, partners, lo[x], hi[x], g, coef, acc)
            if (pl >= 0.0 or pu <= 0.0) and (sl >= 0.0 or su <= 0.0):
                alpha[r] = 1.0 if sl >= 0.0 else 0.0
                beta[r] = alpha[r] - (1.0 if pl >= 0.0 else 0.0)
            else:
                _difference_lines(pl, pu, l, u, sl, su, lines[count])
                partners[count, 0], partners[count, 1] = r, p
                place[r] = count
                count += 1


@numba.njit(cache=True)
def fold_rows(C, b, M, e, partner, size, reach, zlo, zhi, kept):  # type: ignore[no-untyped-def]
    """The condensed form inside one sub-box: variables that are not `kept` (U,) are stable there and become their rows.

    zlo, zhi: (U,) bounds of the variables' rows in the sub-box. Returns (C, b, M over the kept variables, e) of all R rows.
    """
    R, U = M.shape
    n = C.shape[1]
    g = (8.0 * U + n + 32.0) * 2.0**-53 * 1.01
    base = _base(C, b, M, size, reach)
    folded = (np.zeros((R, n)), np.zeros(R), np.zeros((R, U)), np.zeros(R), np.zeros(R), np.zeros(R, np.int64))
    alpha, beta, place = np.zeros(U), np.zeros(U), np.full(U, -1)
    count = 0
    for r in range(R):
        _fold_row(r, (C, b, M, e), partner, size, reach, base, (alpha, beta, place), folded, count, g)
        if r >= U:
            continue
        if kept[r]:
            place[r] = count
            count += 1
        elif partner[r] < 0:
            alpha[r] = 1.0 if zlo[r] >= 0.0 else 0.0
        else:
            p = partner[r]
            alpha[r] = 1.0 if zlo[p] + zlo[r] > 0.0 else 0.0
            beta[r] = alpha[r] - (1.0 if zlo[p] >= 0.0 else 0.0)
    return folded[0], folded[1], folded[2][:, :count].copy(), folded[3]


@numba.njit(cache=True)
def _base(C, b, M, size, reach):  # type: ignore[no-untyped-def]
    """(R,) the sum of absolute terms of every row."""
    base = np.abs(b)
    for r in range(len(b)):
        for i in range(C.shape[1]):
            base[r] += abs(C[r, i]) * reach[i]
        for j in range(M.shape[1]):
            base[r] += abs(M[r, j]) * size[j]
    return base


@numba.njit(cache=True)
def evaluate_rows(C, b, M, partner, points):  # type: ignore[no-untyped-def]
    """All rows of the condensed form at points (m, n), in plain float64, as (m, R)."""
    m, n = points.shape
    R, U = M.shape
    out = np.zeros((m, R))
    v = np.zeros(U)
    for x in range(m):
        for r in range(R):
            total = b[r]
            for i in range(n):
                total += C[r, i] * points[x, i]
            for j in range(min(r, U)):
                total += M[r, j] * v[j]
            out[x, r] = total
            if r < U:
                p = partner[r]
                v[r] = max(total, 0.0) if p < 0 else max(out[x, p] + total, 0.0) - max(out[x, p], 0.0)
    return out
