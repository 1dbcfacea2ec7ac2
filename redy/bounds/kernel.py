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

import numpy as np

from redy.bounds.compiling import compiled

_EPS = 2.0**-52
_TINY = 1e-290
FITS, GAIN = 8, 0.9
"""At most so many bounds of an asked row are computed to fit its lower slopes; the next is tried only where the last
took a tenth off the distance to zero.
"""


@compiled(inline="always")
def _relu_lines(l, u):  # type: ignore[no-untyped-def]  # numba infers types
    """(lower slope, upper slope, upper intercept) of relu on [l, u], valid in exact arithmetic; the lower line has
    intercept 0.
    """
    if l >= 0.0:
        return 1.0, 1.0, 0.0
    if u <= 0.0:
        return 0.0, 0.0, 0.0
    slope = min(u / (u - l), 1.0)
    intercept = max(-slope * l, u * (1.0 - slope)) * (1.0 + 4.0 * _EPS) + _TINY
    return (1.0 if u > -l else 0.0), slope, intercept


@compiled(inline="always")
def _relu_gap(l, u):  # type: ignore[no-untyped-def]
    """The largest distance between the two lines of `_relu_lines` (a heuristic size: rounding does not matter)."""
    if l >= 0.0 or u <= 0.0:
        return 0.0
    return max(-l * u / (u - l), min(u, -l))


@compiled
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


@compiled
def fold_row(r, U, form, state, folded, count, g):  # type: ignore[no-untyped-def]
    """Fold row r of a condensed form of U variables: stable variables become their rows, `count` unstable ones stay.

    form = (C, b, M, e, partner, size, reach, base); state = (alpha, beta, place): v = alpha * row + beta * partner's
    row, or the place-th unstable variable; folded = (C, b, M, err, mag, columns) receives the row. mag is the sum of
    absolute terms of the folded row, base[r] that of the original one.
    """
    C, b, M, e, partner, size, reach, base = form
    alpha, beta, place = state
    FC, Fb, FM, Ferr, Fmag, columns = folded
    n = len(reach)
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


@compiled
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


@compiled
def _respond(upper, folded, count, lines, partners, lo, hi, step, coef, acc, value):  # type: ignore[no-untyped-def]
    """Move the lower slopes that the last `_bound_row` used towards those that are best at the corner it ended in.

    Where the relaxed pre-activation is positive at the corner the slope 1 is best, else 0: a subgradient step of the
    bound in its slopes (alpha-CROWN; Xu et al., ICLR 2021); the bound is sound for any slopes in [0, 1]. value
    (count,) is scratch. Returns whether a slope moved.
    """
    FC, Fb, FM, _, _, columns = folded
    moved = False
    for k in range(count):
        a, j = coef[k], partners[k, 0]
        if partners[k, 1] != j:
            # Of a difference only the smaller part is relaxed by a line with a free slope: it stays as it is.
            value[k] = 0.0
            continue
        total = Fb[j]
        for i in range(len(lo)):
            total += FC[j, i] * (hi[i] if (acc[i] > 0.0) == upper else lo[i])
        for m in range(columns[j]):
            total += FM[j, m] * value[m]
        side = 3 if (a > 0.0) == upper else 0
        value[k] = lines[k, side] * total + lines[k, side + 2]
        if side == 0 and a != 0.0:
            slope = lines[k, 0] + step * ((1.0 if total > 0.0 else 0.0) - lines[k, 0])
            moved = moved or slope != lines[k, 0]
            lines[k, 0] = min(max(slope, 0.0), 1.0)
    return moved


@compiled
def _fit(r, upper, bound, folded, count, lines, partners, lo, hi, g, coef, acc, fitting):  # type: ignore[no-untyped-def]
    """The best of a few bounds of row r, each with lower slopes fitted to the bound before; the first is `bound`.

    Returns it and how many more bounds were computed. The slopes of `lines` are in the end as they were.
    """
    value, kept = fitting
    for k in range(count):
        kept[k] = lines[k, 0]
    tried, step = 0, 0.7
    while tried < FITS and (bound > 0.0 if upper else bound < 0.0):
        if not _respond(upper, folded, count, lines, partners, lo, hi, step, coef, acc, value):
            break
        got = _bound_row(r, upper, folded, count, lines, partners, lo, hi, g, coef, acc)
        tried += 1
        step *= 0.7
        # A fit that hardly moves the bound will not bring it to zero: a cut does more for less.
        hopeless = abs(got) > GAIN * abs(bound)
        bound = min(bound, got) if upper else max(bound, got)
        if hopeless:
            break
    for k in range(count):
        lines[k, 0] = kept[k]
    return bound, tried


@compiled
def _sum_range(r, p, l, u, pl, pu, pair, folded, count, lines, partners, lo, hi, g, coef, acc):  # type: ignore[no-untyped-def]
    """The range of z_p + d for the difference row r: the sum of both ranges, or its own row where that leaves the
    sign open.
    """
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


@compiled
def _blame(acc, coef, count, lo, hi, blame, out):  # type: ignore[no-untyped-def]
    """Add to `out` (n,) the share that each input has in the width of the bound just computed.

    An input widens a bound by its own term, and by the gaps of the relaxations met on the way, each of which is
    blamed on the inputs that widen the relaxed variable. Without the gaps, an input whose coefficient happens to
    vanish would never be cut.
    """
    shares, gaps, score = blame
    total = 1e-300
    for i in range(len(lo)):
        score[i] = abs(acc[i]) * (hi[i] - lo[i])
        total += score[i]
    for k in range(count):
        gap = abs(coef[k]) * gaps[k]
        if gap > 0.0:
            total += gap
            for i in range(len(lo)):
                score[i] += gap * shares[k, i]
    for i in range(len(lo)):
        out[i] += score[i] / total


@compiled
def _note(acc, coef, count, lo, hi, gap, upper, worst, blame, smear, vertex):  # type: ignore[no-untyped-def]
    """Add an open row's share to the smear; keep the corner of the worst row. Returns the new worst gap."""
    _blame(acc, coef, count, lo, hi, blame, smear)
    if gap > worst:
        for i in range(len(lo)):
            vertex[i] = hi[i] if (acc[i] > 0.0) == upper else lo[i]
        return gap
    return worst


@compiled
def scratch(R, U, n):  # type: ignore[no-untyped-def]
    """Work arrays for `bound_box` on up to R rows, U variables, n inputs."""
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


@compiled
def roundings(U, n):  # type: ignore[no-untyped-def]
    """gamma_K, rounded up: a product passes at most 2 roundings per variable and side, then n + a few for the final
    sum.
    """
    return (8.0 * U + n + 32.0) * 2.0**-53 * 1.01


@compiled
def bound_box(R, U, form, lo, hi, zlo, zhi, want, low, high, smear, vertex, work):  # type: ignore[no-untyped-def]
    """Bound the R rows of a condensed form (the first U are its variables') on one sub-box.

    Args:
        form: (C (R, n), b (R,), M (R, U), e (R,), partner (U,), size (U,), reach (n,), base (R,)); the arrays may be
        larger. lo, hi: (n,) the sub-box, inside the box for which `size` and `reach` hold.
        zlo, zhi: (U,) sound bounds of the variables' rows on entry; tightened in place.
        want: (R,) 1 asks for the row's lower bound, 2 for its upper bound, 3 for both, 0 for neither.
        low, high: (R - U,) receive the bounds asked of the rows behind the variables (-inf, inf where not asked).
        smear: (n,) receives how much each input contributes to the open bounds (a heuristic for cutting).
        vertex: (n,) receives the corner that the worst open row points to (a candidate witness).
        work: from `scratch`.

    Returns how many variables are unstable in the sub-box, and how many bounds were computed to fit slopes.
    """
    folded, state, (lines, partners), (coef, acc), blame, fitting = work
    shares, gaps, _ = blame
    alpha, beta, place = state
    partner = form[4]
    n = len(lo)
    g = roundings(U, n)
    count = fits = 0
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
        if whole or asked & 1:
            l = max(l, _bound_row(r, False, folded, count, lines, partners, lo, hi, g, coef, acc))
            if asked & 1 and l < 0.0:
                l, tried = _fit(r, False, l, folded, count, lines, partners, lo, hi, g, coef, acc, fitting)
                fits += tried
            if asked & 1 and l < 0.0:
                worst = _note(acc, coef, count, lo, hi, -l, False, worst, blame, smear, vertex)
        if whole or asked & 2:
            u = min(u, _bound_row(r, True, folded, count, lines, partners, lo, hi, g, coef, acc))
            if asked & 2 and u > 0.0:
                u, tried = _fit(r, True, u, folded, count, lines, partners, lo, hi, g, coef, acc, fitting)
                fits += tried
            if asked & 2 and u > 0.0:
                worst = _note(acc, coef, count, lo, hi, u, True, worst, blame, smear, vertex)
        if r >= U:
            low[r - U], high[r - U] = l, u
            continue
        if whole:
            _blame(acc, coef, count, lo, hi, blame, shares[count])
        zlo[r], zhi[r] = l, u
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
                gaps[count] = _relu_gap(l, u)
                count += 1
            continue
        pl, pu = zlo[p], zhi[p]
        pair = len(folded[1]) - 1
        sl, su = _sum_range(r, p, l, u, pl, pu, pair, folded, count, lines, partners, lo, hi, g, coef, acc)
        if (pl >= 0.0 or pu <= 0.0) and (sl >= 0.0 or su <= 0.0):
            alpha[r] = 1.0 if sl >= 0.0 else 0.0
            beta[r] = alpha[r] - (1.0 if pl >= 0.0 else 0.0)
        else:
            _difference_lines(pl, pu, l, u, sl, su, lines[count])
            partners[count, 0], partners[count, 1] = r, p
            place[r] = count
            gaps[count] = min(_relu_gap(pl, pu) + _relu_gap(sl, su), max(-l, u))
            count += 1
    return count, fits


@compiled
def bound_boxes(R, U, form, lo, hi, zlo, zhi, want, low, high, smear, vertex):  # type: ignore[no-untyped-def]
    """`bound_box` for N sub-boxes: every array argument has a leading axis N."""
    work = scratch(R, U, lo.shape[1])
    for x in range(len(lo)):
        bound_box(R, U, form, lo[x], hi[x], zlo[x], zhi[x], want[x], low[x], high[x], smear[x], vertex[x], work)


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


@compiled
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


@compiled
def fold_rows(R, U, form, zlo, kept, work):  # type: ignore[no-untyped-def]
    """Fold R rows inside one sub-box: variables not `kept` (U,) are stable there, by zlo. The result is in work[0]."""
    folded, state = work[0], work[1]
    alpha, beta, place = state
    partner = form[4]
    g = roundings(U, len(form[6]))
    count = 0
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


@compiled
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
def evaluate_rows(R, U, form, points):  # type: ignore[no-untyped-def]
    """All rows at points (m, n), in plain float64, as (m, R)."""
    out, v = np.zeros((len(points), R)), np.zeros(U)
    for x in range(len(points)):
        evaluate_point(R, U, form, points[x], out[x], v)
    return out
