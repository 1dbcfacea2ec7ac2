"""Compiled: one row of a condensed form in one sub-box is folded, bounded, fitted, and its width blamed on inputs.

`kernel` says what a folded row is made of and why its bounds hold in spite of rounding.
"""

from __future__ import annotations

from redy.condensed.kernels.compiling import compiled

_EPS = 2.0**-52
_TINY = 1e-290
FITS, GAIN = 8, 0.9
"""At most so many bounds of an asked row are computed to fit its lower slopes; the next is tried only where the last
took a tenth off the distance to zero.
"""


@compiled(inner=True)
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


@compiled(inner=True)
def bound_row(r, upper, folded, count, lines, partners, lo, hi, g, coef, acc):  # type: ignore[no-untyped-def]
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


@compiled(inner=True)
def _respond(upper, folded, count, lines, partners, lo, hi, step, coef, acc, value):  # type: ignore[no-untyped-def]
    """Move the lower slopes that the last `bound_row` used towards those that are best at the corner it ended in.

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


@compiled(inner=True)
def fit(r, upper, bound, folded, count, lines, partners, lo, hi, g, coef, acc, fitting):  # type: ignore[no-untyped-def]
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
        got = bound_row(r, upper, folded, count, lines, partners, lo, hi, g, coef, acc)
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


@compiled(inner=True)
def sum_range(r, p, l, u, pl, pu, pair, folded, count, lines, partners, lo, hi, g, coef, acc):  # type: ignore[no-untyped-def]
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
        for side in range(2):
            bound = bound_row(pair, side == 1, folded, count, lines, partners, lo, hi, g, coef, acc)
            if side == 0:
                sl = max(sl, bound)
            else:
                su = min(su, bound)
    return sl, su


@compiled(inner=True)
def blame_inputs(acc, coef, count, lo, hi, blame, out):  # type: ignore[no-untyped-def]
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


@compiled(inner=True)
def note(acc, coef, count, lo, hi, gap, upper, worst, blame, smear, vertex):  # type: ignore[no-untyped-def]
    """Add an open row's share to the smear; keep the corner of the worst row. Returns the new worst gap."""
    blame_inputs(acc, coef, count, lo, hi, blame, smear)
    if gap > worst:
        for i in range(len(lo)):
            vertex[i] = hi[i] if (acc[i] > 0.0) == upper else lo[i]
        return gap
    return worst
